"""Which clips are to be captioned, in which order, and what is known of them."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from alm.captioning.prompts import KINDS, Kind
from alm.captioning.transcripts import Transcripts, read_csv
from alm.data.audio_files import find_audio
from alm.data.example import DataError
from codec.audio import AUDIO_SUFFIXES


@dataclass(frozen=True)
class SourceClip:
    """One clip to caption. `name` is its path from the output's folder: what the output calls it, and its id in the log."""

    path: Path
    name: str
    kind: Kind
    transcript: str | None = None


def list_clips(
    sources: Sequence[str | Path], output: Path, kind: Kind = "auto", transcripts: Transcripts | None = None
) -> list[SourceClip]:
    """List the clips of folders, audio files, text lists and CSV files in the order given (a folder's sorted), each once.

    A CSV has the column `file_name` (relative to its folder) and may have `kind`, which overrides the argument, and `transcript`.
    A text list has one path per line, relative to the current folder. `transcripts` is where transcripts are looked up.
    Raises `DataError` for a source that is missing or yields nothing, an unknown kind, and names that are not UTF-8.
    """
    home = os.path.realpath(output.parent)
    clips: dict[str, SourceClip] = {}
    for source in map(Path, sources):
        for clip in _read(source, kind):
            name = os.path.relpath(Path(os.path.realpath(clip.path.parent), clip.path.name), home)
            if not name.isprintable() and not _is_utf8(name):
                raise DataError(f"{name!r}: the file's name is not UTF-8, so no list can hold it; rename the file")
            clips.setdefault(name, replace(clip, name=name))
    found = list(clips.values())
    if transcripts is None:
        return found
    return [replace(clip, transcript=clip.transcript or transcripts.of(clip.path)) for clip in found]


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _read(source: Path, kind: Kind) -> Iterator[SourceClip]:
    if source.suffix.lower() == ".csv" and source.is_file():
        yield from _read_table(source, kind)
        return
    paths = find_audio([source]).paths
    if source.is_file() and source.suffix.lower() not in AUDIO_SUFFIXES:  # a list: its own order, not the sorted one
        lines = map(str.strip, source.read_text(encoding="utf-8").splitlines())
        paths = [Path(line) for line in lines if line and not line.startswith("#")]
    yield from (SourceClip(path, "", kind) for path in paths)


def _read_table(table: Path, kind: Kind) -> Iterator[SourceClip]:
    rows = list(read_csv(table, ("file_name",)))
    if not rows:
        raise DataError(f"{table}: no rows under its header")
    for number, row in enumerate(rows, start=2):
        own = (row.get("kind") or "").strip() or kind
        if not row["file_name"] or own not in KINDS:
            wrong = f"kind {own!r}; accepted are {', '.join(KINDS)}" if row["file_name"] else "no file_name"
            raise DataError(f"{table}, row {number}: {wrong}")
        known = next(name for name in KINDS if name == own)
        yield SourceClip(table.parent / row["file_name"], "", known, (row.get("transcript") or "").strip() or None)
