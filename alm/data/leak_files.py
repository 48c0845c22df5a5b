"""Origins of the clips in test sets' own metadata files, told apart by their content."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from alm.data.audioset import segments
from alm.data.clotho import METADATA_ENCODING
from alm.data.csv_rows import csv_rows
from alm.data.example import DataError
from alm.data.json_rows import Row, json_rows, read_text
from alm.data.origins import clotho, freesound, librivox, video_of_url, youtube, youtube_of_name

Origins = list[str]
ACCEPTED = (
    "CSV of AudioCaps (youtube_id), Clotho or ClothoAQA (file_name), Clotho's metadata (sound_id), MusicCaps (ytid) or AudioSet's segments; "
    "JSON or JSON lines of MusicBench or Tango (location), MMAR (url), MMAU, CompA-R (audio_id), MusicQA (audio_name), AudioLDM's prompts "
    '({"data": [{"wav"}]}), WavCaps\' blacklists; a .lst of LibriSpeech utterances'
)


def origins_of_file(path: Path) -> Iterator[Origins]:
    """The origins of each row's clip, none where the row does not tell. Raises `DataError` for a file of another form."""
    if path.suffix == ".csv":
        return _of_csv(path)
    if path.suffix == ".lst":
        return _of_list(path)
    if path.suffix in (".json", ".jsonl"):
        return _of_json(path)
    raise DataError(f"{path}: the clips of a test set cannot be read from it. Accepted: {ACCEPTED}")


_CSV: dict[str, Callable[[dict[str, str]], Origins]] = {
    "youtube_id": lambda row: youtube(row["youtube_id"]),
    "ytid": lambda row: youtube(row["ytid"]),
    "sound_id": lambda row: [*clotho(row["file_name"]), *freesound(row["sound_id"])],
    "file_name": lambda row: clotho(row["file_name"]),
}
"""What tells the clip's origin, by the column that a file has; the first that is there."""


def _of_csv(path: Path) -> Iterator[Origins]:
    header = _head(path).partition("\n")[0]
    if header.startswith("#"):
        yield from (youtube(row[0]) for _, row in segments(path))
        return
    column = next((column for column in _CSV if column in header.rstrip("\r").split(",")), None)
    if column is None:
        raise DataError(f"{path}: the clips of a test set cannot be read from its columns {header.strip()}. Accepted: {ACCEPTED}")
    encoding = METADATA_ENCODING if column == "sound_id" else "utf-8-sig"
    yield from (_CSV[column](row) for _, row in csv_rows(path, encoding=encoding))


def _of_list(path: Path) -> Iterator[Origins]:
    for line in read_text(path).split("\n"):
        if line:
            yield [origin for word in re.split(r"[\t|]", line) for origin in librivox(word)]


_JSON: dict[str, Callable[[Row], Origins]] = {
    "location": lambda row: youtube_of_name(_text(row["location"])),
    "url": lambda row: video_of_url(_text(row["url"])) or video_of_id(_text(row.get("id"))),
    "audio_name": lambda row: youtube_of_name(_text(row["audio_name"])),
    "audio_id": lambda row: youtube_of_name(_text(row["audio_id"])),
    "wav": lambda row: youtube_of_name(_text(row["wav"])),
}


def _of_json(path: Path) -> Iterator[Origins]:
    head = _head(path)
    if re.match(r'\s*\{\s*"(AudioSet|FreeSound)"\s*:\s*\[', head):
        yield from _of_blacklist(path)
        return
    rows = json_rows(path, "data" if re.match(r'\s*\{[^\[]*"data"\s*:\s*\[', head) else None)
    for number, row in rows:
        column = next((column for column in _JSON if column in row), None)
        if column is None:
            raise DataError(f"{path}, row {number}: no clip of a test set in its keys {', '.join(row)}. Accepted: {ACCEPTED}")
        yield _JSON[column](row)


def _of_blacklist(path: Path) -> Iterator[Origins]:
    for part, clips in json.loads(read_text(path)).items():
        yield from (youtube_of_name(clip) if part == "AudioSet" else freesound(clip) for clip in clips)


def video_of_id(item: str) -> Origins:
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
