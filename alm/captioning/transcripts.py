"""Transcripts of read speech, found beside the audio as LibriSpeech and LibriTTS keep them, or in a table."""

import csv
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

from alm.data.example import DataError

LIBRITTS_SUFFIXES = (".normalized.txt", ".original.txt")
"""LibriTTS writes numbers out in the first: what is read aloud."""


class Transcripts:
    """Transcripts by audio file: `table` first (resolved path → text), then the official layouts.

    LibriSpeech: `84/121123/84-121123-0001.flac` has a line `84-121123-0001 TEXT` in `84-121123.trans.txt` beside it.
    LibriTTS: `84_121123_000007_000001.wav` has `84_121123_000007_000001.normalized.txt` (or `.original.txt`) beside it.
    """

    def __init__(self, table: Mapping[Path, str] | None = None) -> None:
        self.table = table or {}

    def of(self, path: Path) -> str | None:
        """The transcript of a clip, as it is written; None where there is none. Raises `DataError` for one that is not UTF-8."""
        return (self.table.get(path.resolve()) if self.table else None) or _libritts(path) or _librispeech(path)


def read_transcripts(table: Path) -> dict[Path, str]:
    """Transcripts of a CSV with the columns `file_name` (relative to its folder) and `transcript` or `text`.

    Raises `DataError` naming what is missing.
    """
    rows = list(read_csv(table, ("file_name",)))
    column = next((name for name in ("transcript", "text") if rows and name in rows[0]), None)
    if column is None:
        raise DataError(
            f"{table}: rows with file_name and transcript (or text) needed, got {list(rows[0]) if rows else 'none'}"
        )
    return {(table.parent / row["file_name"]).resolve(): row[column].strip() for row in rows if row[column]}


def read_csv(table: Path, columns: Sequence[str]) -> Iterator[dict[str, str]]:
    """Rows of a UTF-8 CSV with a header that has `columns`. Raises `DataError` naming what is there."""
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            missing = [name for name in columns if name not in (reader.fieldnames or ())]
            if missing:
                raise DataError(f"{table} has columns {list(reader.fieldnames or ())}; {', '.join(missing)} needed")
            yield from reader
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{table} cannot be read as a UTF-8 CSV: {error}") from error


def _libritts(path: Path) -> str | None:
    found = (_read(path.with_name(path.stem + suffix)) for suffix in LIBRITTS_SUFFIXES)
    return next((text.strip() for text in found if text and text.strip()), None)


def _librispeech(path: Path) -> str | None:
    chapter, dash, _ = path.stem.rpartition("-")
    return _chapter(path.with_name(chapter + ".trans.txt")).get(path.stem) if dash else None


@lru_cache(maxsize=64)  # clips of a chapter come one after the other
def _chapter(file: Path) -> dict[str, str]:
    lines = (_read(file) or "").splitlines()
    return {name: text.strip() for name, _, text in (line.partition(" ") for line in lines) if text.strip()}


def _read(file: Path) -> str | None:
    try:
        return file.read_text(encoding="utf-8") if file.is_file() else None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: a transcript that cannot be read ({error})") from error
