"""Keeping test clips out of training: the clips of test sets, by where they come from, are recognised in any data set.

An altered copy (MusicBench's `<video>_<n>.wav`) or another cut of the same video counts as the test clip. What a data set does not tell
cannot be compared: MMAU names no origins, and Clotho gives the numbers at Freesound in its `clotho_metadata_*.csv` only.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from alm.data.example import Example, ReadReport
from alm.data.leak_files import read_clip_list
from alm.data.origins import ORIGINS


@dataclass
class LeakGuard:
    """Test clips by origin; `listed` says of each file how many of its rows there are and how many name an origin."""

    origins: Mapping[str, str]
    listed: Sequence[str] = ()
    excluded: Counter[str] = field(default_factory=Counter)

    @classmethod
    def from_files(cls, files: Iterable[Path | str]) -> "LeakGuard":
        """Read test sets' own metadata, told apart by content (`alm.data.leak_files` lists the forms). Raises `DataError` for others."""
        origins: dict[str, str] = {}
        listed = []
        for file in map(Path, files):
            test_set = read_clip_list(file)
            rows = named = 0
            new: Counter[str] = Counter()
            for found in test_set.rows:
                rows, named = rows + 1, named + bool(found)
                new.update(origin.partition(":")[0] for origin in found if origin not in origins)
                origins.update((origin, test_set.name) for origin in found if origin not in origins)
            clips = ", ".join(f"{count:,} of {kind}" for kind, count in new.items()) or "none new"
            listed.append(f"{test_set.name}: {named:,} of {rows:,} rows name their clip's origin; clips: {clips}")
        return cls(origins, listed)

    def keep(self, examples: Iterable[Example], report: ReadReport) -> Iterator[Example]:
        """Pass on the examples whose clip is in no test set; count the others in `report.excluded`, by test set.

        A clip of several test sets counts under the one whose file was given first.
        """
        for example in examples:
            origins = example.meta.get(ORIGINS, ())
            test_set = next((self.origins[origin] for origin in origins if origin in self.origins), None)
            if test_set is not None:
                report.excluded[test_set] += 1
                self.excluded[test_set] += 1
                continue
            report.unchecked += not origins and bool(self.origins) and bool(example.audio_items())
            yield example

    def summary(self) -> str:
        """One line for a log: how many examples were kept out, by test set."""
        parts = ", ".join(f"{count:,} of {name}" for name, count in self.excluded.most_common()) or "none"
        return f"leak guard: {len(self.origins):,} test clips known; examples kept out of training: {parts}"
