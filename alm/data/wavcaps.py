"""WavCaps: captions written by a language model for 403,050 clips of AudioSet, BBC Sound Effects, Freesound and SoundBible.

`json_files/<part>/…_final.json`, each `{"num_captions_per_audio": 1, "data": [{"id", "caption", "duration", "description", …}]}`; the
split archives unpack to `<part>_flac/` or `<part>/` with 32 kHz FLAC (https://huggingface.co/datasets/cvssp/WavCaps). Ids of AudioSet_SL
are `Y<video>.wav`, although the files are FLAC; the others are numbers or texts. `json_files/blacklist/*.json` list the clips that
AudioCaps, Clotho and other test sets are made of.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from alm.data.audio_names import AudioFinder
from alm.data.example import CAPTION, DataError, Example, ReadReport, clip_with_text
from alm.data.json_rows import json_rows, text_field
from alm.data.leaks import LeakGuard
from alm.data.origins import freesound, meta_of, stem, youtube_of_name

PARTS = {
    "AudioSet_SL": "as_final.json",
    "BBC_Sound_Effects": "bbc_final.json",
    "FreeSound": "fsd_final.json",
    "SoundBible": "sb_final.json",
}
Part = Literal["all", "AudioSet_SL", "BBC_Sound_Effects", "FreeSound", "SoundBible"]


def examples(
    path: Path | str,
    report: ReadReport,
    *,
    audio: Path | str | None = None,
    part: Part = "all",
    blacklist: Path | str | None = None,
    max_seconds: float | None = None,
) -> Iterator[Example]:
    """One example per clip of a JSON file, or of the parts' in the folder `json_files`; `id` is `<part>:<the clip's id>`.

    `audio` holds the parts' folders, or the clips of a single part themselves (default: the folder above `json_files`). `blacklist` is
    one of the data set's lists: its clips are left out and counted in `report.excluded`. Clips longer than `max_seconds`, by the file's
    own figures (some last 18 hours), and empty captions are dropped and counted. Raises `DataError` for a malformed row.
    """
    guard = LeakGuard.from_files([blacklist]) if blacklist is not None else LeakGuard({})
    for name, metadata in _files(Path(path), part):
        folder = Path(audio) if audio is not None else metadata.parent.parent.parent
        finder = AudioFinder(folder, [f"{name}_flac/{{id}}", f"{name}/{{id}}", "{id}"], (".flac", ".wav"))
        yield from guard.keep(_of_part(name, metadata, finder, report, max_seconds), report)


def _of_part(
    name: str, metadata: Path, finder: AudioFinder, report: ReadReport, max_seconds: float | None
) -> Iterator[Example]:
    for number, row in json_rows(metadata, "data"):
        report.rows += 1
        caption, clip, seconds = (
            text_field(row, "caption", metadata, number),
            _id(row, metadata, number),
            row.get("duration"),
        )
        if not caption.strip():
            report.dropped["empty caption"] += 1
        elif max_seconds is not None and not (isinstance(seconds, int | float) and seconds <= max_seconds):
            report.dropped[f"longer than {max_seconds:g} seconds, or of unknown length"] += 1
        else:
            meta = meta_of(
                _origins(name, clip), part=name, clip=clip, seconds=seconds, description=row.get("description")
            )
            item = {"path": str(finder.find(id=stem(clip)))}
            yield clip_with_text(f"{name}:{clip}", report.source, item, caption, CAPTION, meta)


def _files(path: Path, part: Part) -> list[tuple[str, Path]]:
    if path.is_dir():
        return [(name, path / name / file) for name, file in PARTS.items() if part in ("all", name)]
    named = {file: name for name, file in PARTS.items()}
    name = part if part != "all" else named.get(path.name, path.parent.name)
    if name not in PARTS:
        raise DataError(f"{path}: which part is it? Add part=…, one of {', '.join(PARTS)}")
    return [(name, path)]


def _id(row: dict[str, Any], path: Path, number: int) -> str:
    value = row.get("id")
    if not isinstance(value, str | int) or value == "":
        raise DataError(f"{path}, row {number}: 'id' must be text or a number, got {value!r}")
    return str(value)


def _origins(part: str, clip: str) -> list[str]:
    if part == "AudioSet_SL":
        return youtube_of_name(clip)
    return freesound(clip) if part == "FreeSound" else [f"{part.lower()}:{stem(clip)}"]
