"""Audio as corpora keep it: files of their own, rows of Parquet files (also on the Hub), members of tar archives.

A group is what is read in one go. Each of its clips has a label, which follows the group's path in the clip's name:
`clip.wav`, `train-00000.parquet::12`, `clips.tar.gz::a/b.mp3`.
"""

import re
import tarfile
import zlib
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from alm.data.audio_files import find_audio, is_audio
from alm.data.example import DataError
from codec.audio import AudioError
from codec.data import ClipListError, parquet_shards

SEPARATOR = "::"
ARCHIVES = (".tar", ".tar.gz", ".tgz")
PARQUET = ".parquet"
Audio = Path | bytes | AudioError
"""A file, an encoded file's bytes, or why there is neither."""


class Stamp(NamedTuple):
    """By what a group is known to be unchanged: bytes (None where they say nothing) and nanoseconds."""

    size: int | None
    mtime_ns: int


class AudioGroup(Protocol):
    """Clips that are read together, each under its label."""

    @property
    def path(self) -> str:
        """The file, or the address, that holds the clips."""

    @property
    def labels(self) -> Sequence[str]:
        """What follows the path in each clip's name; "" where the file is the clip."""

    def stamp(self) -> Stamp:
        """The state of the file. Raises `OSError` where it cannot be asked."""

    def read(self, labels: Collection[str]) -> Iterator[tuple[str, Audio]]:
        """The clips of some labels."""


@dataclass(frozen=True)
class AudioFile:
    """A file that is one clip."""

    path: str
    labels: Sequence[str] = ("",)

    def stamp(self) -> Stamp:
        """Bytes and time of the file."""
        stat = Path(self.path).stat()
        return Stamp(stat.st_size, stat.st_mtime_ns)

    def read(self, labels: Collection[str]) -> Iterator[tuple[str, Audio]]:
        """The file itself, unread."""
        yield from ((label, Path(self.path)) for label in labels)


@dataclass(frozen=True)
class RowGroup:
    """A row group of a Parquet file with a column `audio` (`{"bytes", "path"}`, as the Hub has it, or plain bytes)."""

    path: str
    number: int
    first: int
    rows: int

    @property
    def labels(self) -> Sequence[str]:
        """`::N` for row N of the file."""
        return [f"{SEPARATOR}{row}" for row in range(self.first, self.first + self.rows)]

    def stamp(self) -> Stamp:
        """Time of the file; the address of a file on the Hub holds its commit."""
        return _stamp_of_container(self.path)

    def read(self, labels: Collection[str]) -> Iterator[tuple[str, Audio]]:
        """The rows' bytes; where a row has a path alone, that file."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            with open_binary(self.path) as file:
                column = pq.ParquetFile(file).read_row_group(self.number, columns=["audio"]).column("audio")
        except (OSError, pa.ArrowException) as error:
            yield from ((label, AudioError(f"row group {self.number} cannot be read ({error})")) for label in labels)
            return
        for label, value in zip(self.labels, column, strict=True):
            if label in labels:
                yield label, _audio_of_row(value.as_py())


@dataclass(frozen=True)
class Archive:
    """A tar archive, compressed or not, read from front to back."""

    path: str
    labels: Sequence[str]

    def stamp(self) -> Stamp:
        """Time of the file."""
        return _stamp_of_container(self.path)

    def read(self, labels: Collection[str]) -> Iterator[tuple[str, Audio]]:
        """The members' bytes; of members with one name the first."""
        wanted, reason = set(labels), "no longer in the archive"
        try:
            with tarfile.open(self.path) as archive:
                for member in archive:
                    label = f"{SEPARATOR}{member.name}"
                    file = archive.extractfile(member) if label in wanted and member.isfile() else None
                    if file is not None:
                        yield label, file.read()
                        wanted.discard(label)
        except _DAMAGE as error:
            reason = f"archive cannot be read ({error})"
        yield from ((label, AudioError(reason)) for label in sorted(wanted))


@dataclass(frozen=True)
class Unreadable:
    """A container that cannot even be listed: one failure, not the end of the run."""

    path: str
    reason: str
    labels: Sequence[str] = ("",)

    def stamp(self) -> Stamp:
        """Never known."""
        return Stamp(None, -1)

    def read(self, labels: Collection[str]) -> Iterator[tuple[str, Audio]]:
        """The reason."""
        yield from ((label, AudioError(self.reason)) for label in labels)


_DAMAGE = (tarfile.TarError, EOFError, OSError, zlib.error)


class AudioGroups(NamedTuple):
    """Groups found, in order, and how many other files the folders hold, by suffix."""

    groups: list[AudioGroup]
    ignored: Counter[str]

    @property
    def clips(self) -> int:
        """Clips in all groups."""
        return sum(len(group.labels) for group in self.groups)


def find_groups(sources: Iterable[str], split: str = "train") -> AudioGroups:
    """List audio: what `find_audio` finds, and the Parquet files and tar archives beside it.

    A source that is no file or folder here but reads OWNER/NAME is a data set of the Hub in Parquet, of which `split` is read where it
    is. Parquet files without a column `audio` are ignored. Raises `DataError` for a source that yields nothing.
    """
    groups: list[AudioGroup] = []
    ignored: Counter[str] = Counter()
    for source in sources:
        if not Path(source).exists() and re.fullmatch(r"[\w.-]+/[\w.-]+", source):
            paths = _shards(source, split)
        else:
            files = find_audio([source], also=(PARQUET, *ARCHIVES))
            paths = list(map(str, files.paths))
            ignored += files.ignored
        found = [group for path in paths for group in _groups_of(path, ignored)]
        if not found:
            raise DataError(
                f"{source}: no audio in it ({len(paths)} files, none with a column audio or an audio member)"
            )
        groups += found
    unique = {(group.path, group.labels[0]): group for group in groups}
    return AudioGroups(list(unique.values()), ignored)


def open_binary(path: str) -> Any:
    """A file of this machine or of an address, open for reading."""
    if "://" not in path:
        return Path(path).open("rb")
    import fsspec

    return fsspec.open(path, "rb").open()


def _shards(name: str, split: str) -> list[str]:
    try:
        return parquet_shards(name, split)
    except ClipListError as error:
        raise DataError(f"{name}: no such file or folder, and on the Hub: {error}") from error


def _groups_of(path: str, ignored: Counter[str]) -> list[AudioGroup]:
    if path.lower().endswith(PARQUET):
        return _row_groups(path, ignored)
    if path.lower().endswith(ARCHIVES):
        return _archive(path, ignored)
    return [AudioFile(path)]


def _row_groups(path: str, ignored: Counter[str]) -> list[AudioGroup]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with open_binary(path) as file:
            footer = pq.read_metadata(file)
    except (OSError, pa.ArrowException) as error:
        return [Unreadable(path, f"not a Parquet file, or a damaged one ({error})")]
    if "audio" not in footer.schema.to_arrow_schema().names:
        ignored[f"{PARQUET} without a column audio"] += 1
        return []
    sizes = [footer.row_group(number).num_rows for number in range(footer.num_row_groups)]
    return [RowGroup(path, number, sum(sizes[:number]), size) for number, size in enumerate(sizes) if size]


def _archive(path: str, ignored: Counter[str]) -> list[AudioGroup]:
    try:
        with tarfile.open(path) as archive:
            names = sorted({member.name for member in archive if member.isfile() and is_audio(Path(member.name))})
    except _DAMAGE as error:
        return [Unreadable(path, f"not a tar archive, or a damaged one ({error})")]
    if not names:
        ignored["archives without audio"] += 1
        return []
    return [Archive(path, tuple(f"{SEPARATOR}{name}" for name in names))]


def _stamp_of_container(path: str) -> Stamp:
    return Stamp(None, 0 if "://" in path else Path(path).stat().st_mtime_ns)


def _audio_of_row(value: Any) -> Audio:
    if isinstance(value, bytes):
        return value
    value = value or {}
    if value.get("bytes"):
        return bytes(value["bytes"])
    return Path(value["path"]) if value.get("path") else AudioError("the row has no audio")
