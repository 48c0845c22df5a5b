"""The clips of test sets, read from the test sets' own metadata files, which are told apart by their content."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from alm.data.audioset import segments
from alm.data.clotho import METADATA_ENCODING
from alm.data.csv_rows import csv_rows
from alm.data.example import DataError
from alm.data.json_rows import Row, json_rows, read_text
from alm.data.origins import clotho, freesound, librivox, video_of_url, youtube, youtube_of_name

Origins = list[str]
ACCEPTED = (
    "CSV of AudioCaps, Clotho (captions or metadata), ClothoAQA, MusicCaps, or AudioSet's segments; JSON or JSON lines of MusicBench, "
    "MMAR, MMAU, MusicQA, CompA-R, AudioLDM's or Tango's prompts, or a blacklist of WavCaps; a .lst of LibriSpeech utterances"
)


class ClipList(NamedTuple):
    """The name of a test set, with its file's, and the origins of each row's clip, none where the row does not tell."""

    name: str
    rows: Iterator[Origins]


def read_clip_list(path: Path) -> ClipList:
    """Raises `DataError` for a file that is missing or of another form."""
    head = _head(path)
    readers = {".csv": _csv, ".lst": _lst, ".json": _json, ".jsonl": _json}
    found = readers[path.suffix](path, head) if path.suffix in readers else None
    if found is None:
        raise DataError(f"{path}: its clips cannot be read; it begins with {head[:80]!r}. Accepted: {ACCEPTED}")
    return ClipList(f"{found.name} ({path.name})", found.rows)


_CSV: dict[str, tuple[str, Callable[[dict[str, str]], Origins]]] = {
    "youtube_id": ("AudioCaps", lambda row: youtube(row["youtube_id"])),
    "ytid": ("MusicCaps", lambda row: youtube(row["ytid"])),
    "sound_id": ("Clotho", lambda row: [*clotho(row["file_name"]), *freesound(row["sound_id"])]),
    "QuestionText": ("ClothoAQA", lambda row: clotho(row["file_name"])),
    "caption_1": ("Clotho", lambda row: clotho(row["file_name"])),
}
"""Test set, and what tells the clip's origin, by the first of these columns that is there."""


def _csv(path: Path, head: str) -> ClipList | None:
    if head.startswith("#"):
        return ClipList("AudioSet", (youtube(row[0]) for _, row in segments(path)))
    header = head.partition("\n")[0].rstrip("\r").split(",")
    column = next((column for column in _CSV if column in header), None)
    if column is None:
        return None
    name, origins = _CSV[column]
    encoding = METADATA_ENCODING if column == "sound_id" else "utf-8-sig"
    return ClipList(name, (origins(row) for _, row in csv_rows(path, encoding=encoding)))


def _lst(path: Path, head: str) -> ClipList | None:
    lines = (line for line in read_text(path).split("\n") if line)
    rows = ([origin for word in re.split(r"[\t|]", line) for origin in librivox(word)] for line in lines)
    return ClipList("LibriSpeech", rows) if any(librivox(word) for word in re.split(r"[\t|\n]", head)) else None


_JSON: dict[str, tuple[str, Callable[[Row], Origins]]] = {
    "location": ("MusicBench", lambda row: youtube_of_name(_text(row["location"]))),
    "url": ("MMAR", lambda row: video_of_url(_text(row["url"])) or _video_of_id(_text(row.get("id")))),
    "choices": ("MMAU", lambda row: []),
    "audio_name": ("MusicQA", lambda row: youtube_of_name(_text(row["audio_name"]))),
    "audio_id": ("CompA-R", lambda row: youtube_of_name(_text(row["audio_id"]))),
    "wav": ("AudioCaps, AudioLDM's list", lambda row: youtube_of_name(_text(row["wav"]))),
}


def _json(path: Path, head: str) -> ClipList | None:
    if re.match(r'\s*\{\s*"(AudioSet|FreeSound)"\s*:\s*\[', head):
        return ClipList("WavCaps' blacklist", _of_blacklist(path))
    key = "data" if re.match(r'\s*\{[^\[{]*"data"\s*:\s*\[', head) else None
    row = next((row for _, row in json_rows(path, key)), {})
    column = next((column for column in _JSON if column in row), None)
    if column is None:
        return None
    name, origins = _JSON[column]
    if column == "location" and "dataset" in row and "captions" in row:
        name = "AudioCaps, Tango's list"
    return ClipList(name, (origins(row) if column in row else [] for _, row in json_rows(path, key)))


def _of_blacklist(path: Path) -> Iterator[Origins]:
    for part, clips in json.loads(read_text(path)).items():
        yield from (youtube_of_name(clip) if part == "AudioSet" else freesound(clip) for clip in clips)


def _video_of_id(item: str) -> Origins:
    """MMAR's `<video>_HH-MM-SS_HH-MM-SS`."""
    return [*youtube_of_name(item), *video_of_url(item)][:1]


def _head(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(4096).decode("utf-8-sig", errors="replace")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}). Check the path of the test set's file.") from error


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
