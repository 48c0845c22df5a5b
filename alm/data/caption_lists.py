"""Lists of captions to make sounds of, in the forms in which AudioCaps' and Clotho's are published.

    AudioCaps       test.csv: audiocap_id,youtube_id,start_time,caption (https://github.com/cdjkim/audiocaps)
    Clotho          clotho_captions_evaluation.csv: file_name,caption_1,…,caption_5 (https://zenodo.org/records/4783391)
    AudioLDM        {"data": [{"wav": ".../Y<youtube id>.wav", "caption": …}]}: one caption of each of 964 clips of AudioCaps
    Tango           JSON lines {"dataset", "location": ".../<youtube id>_<start>.wav", "captions"}: 886 of these
    any other       CSV or JSON rows with id (or name) and caption

Scores on different lists are not comparable, nor are first captions with all five. Captions are kept bit for bit.
"""

import hashlib
import html
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from alm.data import audiocaps, clotho
from alm.data.audio_names import AudioFinder
from alm.data.csv_rows import csv_rows
from alm.data.example import DataError
from alm.data.json_rows import json_rows, read_text, text_field

Captions = Literal["first", "all"]
FORMS = "AudioCaps' or Clotho's CSV, AudioLDM's or Tango's JSON, or rows with id (or name) and caption"


@dataclass(frozen=True)
class Captioned:
    """A caption to make a sound of. `id` names the sound's file, `clip` the recording that was captioned."""

    id: str
    clip: str
    caption: str
    fields: dict[str, str | int] = field(default_factory=dict, hash=False)
    """What names of the recording's file are made of, with the list's `spellings`."""


@dataclass(frozen=True)
class CaptionList:
    """Captions in file order; `name` is the data set's and the list's, `sha256` the file's."""

    name: str
    items: tuple[Captioned, ...]
    spellings: tuple[str, ...]
    sha256: str

    def sounds(self, folder: Path) -> dict[str, Path]:
        """A system's files by item: `folder/<id>.*`, and where each clip has one caption also by the recording's names."""
        single = len({item.clip for item in self.items}) == len(self.items)
        finder = AudioFinder(folder, ("{item}", *(self.spellings if single else ())))
        return self._found(finder, {item.id: item for item in self.items})

    def recordings(self, folder: Path) -> dict[str, Path]:
        """The recordings there are by clip."""
        return self._found(AudioFinder(folder, self.spellings), {item.clip: item for item in self.items})

    @staticmethod
    def _found(finder: AudioFinder, items: dict[str, Captioned]) -> dict[str, Path]:
        paths = {key: finder.find(item=item.id, **item.fields) for key, item in items.items()}
        return {key: path for key, path in paths.items() if path.is_file()}


def read(path: Path | str, captions: Captions = "first", limit: int | None = None) -> CaptionList:
    """Read a list: the first caption of each clip, or all of them; of the items the first `limit`.

    Raises `DataError`, with file and row, for another form, and for an id that is repeated or names no file.
    """
    path = Path(path)
    name, spellings, rows = _form(path)
    items: dict[str, Captioned] = {}
    clips: set[str] = set()
    for item in rows:
        if captions == "first" and item.clip in clips:
            continue
        clips.add(item.clip)
        item = _named(item, captions)
        if item.id in items:
            raise DataError(f"{path}: {item.id!r} occurs twice; its two sounds would be one file")
        if not item.id or len(PurePosixPath(item.id).parts) != 1 or item.id in ("..", "/"):
            raise DataError(f"{path}: the id {item.id!r} cannot name a file in the folder of the sounds")
        if not item.caption.strip():
            raise DataError(f"{path}: {item.id!r} has no caption")
        items[item.id] = item
    if not items:
        raise DataError(f"{path}: no captions in it; accepted are {FORMS}")
    several = len(items) > len(clips)
    chosen = (
        "all captions" if several else "first captions" if name in ("AudioCaps", "Clotho") else "one caption a clip"
    )
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return CaptionList(f"{name}, {chosen}", tuple(items.values())[:limit], spellings, digest)


def _named(item: Captioned, captions: Captions) -> Captioned:
    return item if captions == "all" else Captioned(item.clip, item.clip, item.caption, item.fields)


_Rows = Iterator[tuple[int, dict[str, Any]]]
_Form = tuple[str, tuple[str, ...], Iterator[Captioned]]


def _form(path: Path) -> _Form:
    """Name, spellings of the recordings' files, and items by caption."""
    if path.suffix.lower() == ".csv":
        header = next(csv_rows(path), (0, {}))[1].keys()
        if header >= set(audiocaps.COLUMNS):
            return "AudioCaps", (*audiocaps.NAMES, "{caption_id}"), _audiocaps(path)
        if header >= {*clotho.COLUMNS}:
            return "Clotho", ("{stem}", "{written_out}"), _clotho(path)
        return path.stem, ("{clip}",), _plain(path, csv_rows(path))
    if _holds_data(path):
        return (
            "AudioCaps (AudioLDM's list)",
            ("{stem}", "{id}"),
            _located(path, json_rows(path, "data"), "wav", "caption"),
        )
    _, first = next(json_rows(path), (0, {}))
    if {"location", "captions"} <= first.keys():
        return (
            "AudioCaps (Tango's list)",
            ("{stem}", "Y{id}", "{id}"),
            _located(path, json_rows(path), "location", "captions"),
        )
    return path.stem, ("{clip}",), _plain(path, json_rows(path))


def _holds_data(path: Path) -> bool:
    try:
        whole = json.loads(read_text(path))
    except json.JSONDecodeError:  # JSON lines, or an error that the reader of rows tells better
        return False
    return isinstance(whole, dict) and "data" in whole


def _audiocaps(path: Path) -> Iterator[Captioned]:
    for number, row in csv_rows(path, audiocaps.COLUMNS):
        video, times = row["youtube_id"], audiocaps.times_of(row["start_time"], path, number)
        fields: dict[str, str | int] = {"id": video, "caption_id": row["audiocap_id"], **times}
        yield Captioned(row["audiocap_id"], f"Y{video}", row["caption"], fields)


def _clotho(path: Path) -> Iterator[Captioned]:
    for _, row in csv_rows(path, clotho.COLUMNS):
        stem = row["file_name"].removesuffix(".wav")
        fields: dict[str, str | int] = {"stem": stem, "written_out": html.unescape(stem)}
        for index, column in enumerate(clotho.COLUMNS[1:], start=1):
            yield Captioned(f"{stem}_{index}", stem, row[column], fields)


def _located(path: Path, rows: _Rows, place: str, caption: str) -> Iterator[Captioned]:
    """Rows that name the recording's file: `Y<youtube id>.wav` or `<youtube id>_<start>.wav`."""
    for number, row in rows:
        stem = PurePosixPath(text_field(row, place, path, number)).stem
        video = stem.removeprefix("Y") if place == "wav" else stem.rpartition("_")[0]
        clip = f"Y{video}"
        yield Captioned(clip, clip, text_field(row, caption, path, number), {"stem": stem, "id": video})


def _plain(path: Path, rows: _Rows) -> Iterator[Captioned]:
    for number, row in rows:
        key = next((key for key in ("id", "name") if key in row), "id")
        name = text_field(row, key, path, number).removesuffix(".wav")
        yield Captioned(name, name, text_field(row, "caption", path, number), {"clip": name})


def others(items: Sequence[Captioned]) -> dict[str, str]:
    """A caption of another clip for each item: the one at its place in the next clip. Empty where there is a single clip."""
    clips: dict[str, list[Captioned]] = {}
    for item in items:
        clips.setdefault(item.clip, []).append(item)
    turned = dict(zip(clips, [*list(clips)[1:], next(iter(clips))], strict=True)) if len(clips) > 1 else {}
    return {
        item.id: clips[turned[clip]][place % len(clips[turned[clip]])].caption
        for clip, own in clips.items()
        if turned
        for place, item in enumerate(own)
    }
