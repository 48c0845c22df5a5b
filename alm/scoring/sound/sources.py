"""The clips of a run: folders, lists and files, or a data set of the Hub; and the stored reconstructions paired with them."""

import io
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import soundfile

from alm.data.audio_files import find_audio
from alm.data.example import DataError
from codec.audio import AudioError, read_audio, read_bytes


class Clip(NamedTuple):
    """One original: `group` (folder or data set), `name` (path within it, without suffix), and its file or bytes."""

    group: str
    name: str
    source: Path | bytes

    @property
    def id(self) -> str:
        """`group/name`, unique in a run."""
        return f"{self.group}/{self.name}"

    def bytes(self) -> bytes:
        """The file's bytes. Raises `AudioError`."""
        return self.source if isinstance(self.source, bytes) else read_bytes(self.source)


def native_rate(data: bytes, name: str) -> int:
    """Sampling rate of an audio file's bytes. Raises `AudioError` where they are not audio."""
    try:
        return int(soundfile.info(io.BytesIO(data)).samplerate)
    except soundfile.LibsndfileError:
        read_audio(data, 16_000, name)  # raises with the reason
        raise AudioError(f"{name}: its header cannot be read") from None


def folder_clips(sources: Sequence[str], every: int = 1, limit: int | None = None) -> list[Clip]:
    """Clips of folders, text lists and files: of each source every n-th, and at most `limit` evenly over it.

    A group is called by its last path component, or by its whole path where two are the same. Raises `DataError`.
    """
    names = [Path(source).name for source in sources]
    clips: list[Clip] = []
    for source, name in zip(sources, names, strict=True):
        group = name if names.count(name) == 1 and name else str(source)
        paths = thin(find_audio([source]).paths, every, limit)
        root = Path(source) if Path(source).is_dir() else _common(paths)
        clips += [Clip(group, path.relative_to(root).with_suffix("").as_posix(), path) for path in paths]
    seen: dict[str, Path | bytes] = {}
    for clip in clips:
        if clip.id in seen:
            raise DataError(f"{clip.source!s} and {seen[clip.id]!s} differ in their suffix only; keep one of them")
        seen[clip.id] = clip.source
    return clips


def thin(paths: Sequence[Path], every: int, limit: int | None) -> list[Path]:
    """Every n-th path, then about `limit` of them spread evenly."""
    chosen = list(paths[::every])
    if limit is not None:
        chosen = chosen[:: max(1, -(-len(chosen) // limit))]
    return chosen


def hub_clips(
    dataset: str, config: str | None, split: str, column: str, every: int = 1, limit: int | None = None
) -> Iterator[Clip]:
    """Clips of a data set (Hub id or local folder of one), streamed: the first `limit` of every n-th row.

    Raises `DataError` for a column that is not there or holds no audio files.
    """
    from datasets import Audio, load_dataset

    try:
        rows = load_dataset(dataset, config, split=split, streaming=True)
    except (OSError, ValueError) as error:
        raise DataError(f"data set {dataset} (config {config}, split {split}) cannot be opened: {error}") from error
    if rows.column_names is not None and column not in rows.column_names:
        raise DataError(f"{dataset} has no column {column!r}, it has {', '.join(rows.column_names)} (--dataset_column)")
    taken = 0
    for number, row in enumerate(rows.cast_column(column, Audio(decode=False))):
        if number % every:
            continue
        if limit is not None and taken >= limit:
            return
        taken += 1
        audio = row[column]
        source = audio["bytes"] if audio.get("bytes") else Path(audio["path"])
        yield Clip(Path(dataset).name, f"{number:06d}", source)


def pair_stored(clips: Sequence[Clip], folder: str) -> dict[str, Path]:
    """Stored reconstructions by clip id: `folder/group/name.*`, or, of a single group, `folder/name.*`.

    Clips without one are left out. Raises `DataError` where two files have one name.
    """
    root = Path(folder)
    stored: dict[str, Path] = {}
    for path in find_audio([root]).paths:
        name = path.relative_to(root).with_suffix("").as_posix()
        if name in stored:
            raise DataError(f"{path} and {stored[name]} have one name; keep one of them")
        stored[name] = path
    single = len({clip.group for clip in clips}) == 1
    pairs = {}
    for clip in clips:
        found = stored.get(clip.id) or (stored.get(clip.name) if single else None)
        if found is not None:
            pairs[clip.id] = found
    return pairs


def by_group(clips: Sequence[Clip]) -> Mapping[str, int]:
    """Number of clips of each group, in order."""
    counts: dict[str, int] = {}
    for clip in clips:
        counts[clip.group] = counts.get(clip.group, 0) + 1
    return counts


def _common(paths: Sequence[Path]) -> Path:
    """Folder that all paths share."""
    return Path(os.path.commonpath([path.parent for path in paths])) if paths else Path()
