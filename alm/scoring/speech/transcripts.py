"""What a recogniser has heard, stored by whoever ran it: scored without the sound."""

import json
from collections.abc import Sequence
from pathlib import Path

from alm.data.example import DataError
from alm.data.json_rows import json_rows, read_text
from alm.data.seed_tts import Utterance
from alm.scoring.speech.listening import Take
from alm.scoring.speech.words import read_transcripts
from codec.audio import AUDIO_SUFFIXES

FORMS = (
    '{"utterance or wav name": "text", …}, JSON lines or a JSON list with id and text, or CSV with file_name and text'
)


def transcript_takes(items: Sequence[Utterance], path: Path) -> dict[str, Take]:
    """Takes by utterance. Names may be ids or names of files; null is no transcript, and "" one of silence.

    Raises `DataError` for another form, two transcripts of one utterance, and where none belongs to any.
    """
    heard: dict[str, str | None] = {}
    for name, text in _pairs(path):
        for suffix in AUDIO_SUFFIXES:
            name = name.removesuffix(suffix)
        if heard.setdefault(name, text) != text:
            raise DataError(f"{path}: two transcripts of {name}")
    by_file = {Path(name).name: text for name, text in heard.items()}
    found = {item.id: heard.get(item.id, by_file.get(Path(item.id).name)) for item in items}
    takes = {name: Take(transcript=text) for name, text in found.items() if text is not None}
    if not takes:
        raise DataError(
            f"{path}: none of its {len(heard)} transcripts belongs to an utterance of the list; check --meta"
        )
    return takes


def _pairs(path: Path) -> list[tuple[str, str | None]]:
    if path.suffix.lower() == ".csv":
        return list(read_transcripts(path).items())
    try:
        whole = json.loads(read_text(path))
    except json.JSONDecodeError:
        whole = None
    pairs = list(whole.items()) if isinstance(whole, dict) and not {"id", "text"} <= whole.keys() else _rows(path)
    for name, text in pairs:
        if not isinstance(name, str) or not isinstance(text, str | None):
            raise DataError(f"{path}: {name!r} has {text!r:.40} for a transcript; {FORMS} expected")
    return pairs


def _rows(path: Path) -> list[tuple[str, str | None]]:
    rows = [row for _, row in json_rows(path)]
    if lacking := next((row for row in rows if not {"id", "text"} <= row.keys()), None):
        raise DataError(f"{path}: {str(lacking)[:60]} has not both id and text; {FORMS} expected")
    return [(row["id"], row["text"]) for row in rows]
