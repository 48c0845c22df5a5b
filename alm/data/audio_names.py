"""Where a clip lies on disk, for data sets whose copies spell file names in different ways."""

from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path

SUFFIXES = (".wav", ".flac", ".mp3", ".ogg", ".opus")


class AudioFinder:
    """Finds clips below a folder, trying first what was right the last time: about one look at the disk per clip."""

    def __init__(self, folder: Path | str, spellings: Sequence[str], suffixes: Sequence[str] = SUFFIXES) -> None:
        """`spellings` are formats of a path below `folder` without its suffix, such as `"Y{youtube_id}"`, the likeliest first."""
        self.folder = Path(folder)
        self._forms = list(product(spellings, suffixes))

    def find(self, **fields: object) -> Path:
        """The file that is there; where none is, the path in the spelling that was right the last time."""
        for position, path in enumerate(self._paths(fields)):
            if path.is_file():
                self._forms.insert(0, self._forms.pop(position))
                return path
        return next(self._paths(fields))

    def _paths(self, fields: dict[str, object]) -> Iterator[Path]:
        for spelling, suffix in self._forms:
            yield self.folder / (spelling.format(**fields) + suffix)


def below(folder: Path, relative: str) -> Path:
    """The file `relative` of `folder`, which may also be the folder that `relative` begins with ("./audio/x.wav" of ".../audio")."""
    path = Path(relative)  # Path drops the "./"
    if len(path.parts) > 1 and path.parts[0] == folder.name:
        return folder.parent / path
    return folder / path
