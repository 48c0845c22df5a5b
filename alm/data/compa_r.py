"""CompA-R (GAMA): instructions that ask for reasoning about AudioSet-strong clips.

Training: a JSON list of `{"audio_id": "./compa_r_train_audios/<ytid>.wav", "instruction": …, "output": …}`, sometimes with
`input`, `dataset`, `task`. Test: `{"audio_id", "caption", "timestamp_events", "instruction_output": [{"instruction", "output"}, …]}`.
`audio_id` "empty" marks a text-only row (https://github.com/Sreyan88/GAMA).
"""

from collections.abc import Iterator
from pathlib import Path

from alm.data.audio_names import below
from alm.data.example import DataError, Example, ReadReport, keep_with_audio, question_answer
from alm.data.json_rows import Row, json_rows, text_field
from alm.data.origins import meta_of, youtube_of_name

TEXT_ONLY = "empty"
KEPT: tuple[str, ...] = ("audio_id", "dataset", "task", "caption", "timestamp_events")
"""Columns that go into an example's `meta`."""


def read(
    metadata: Path | str, audio_folder: Path | str, report: ReadReport | None = None, max_missing: float | None = 0.1
) -> Iterator[Example]:
    """`examples` whose audio is there. Raises `DataError` where more than the share `max_missing` lacks its audio (None: no limit)."""
    report = report or ReadReport("compa_r")
    return keep_with_audio(examples(metadata, report, audio=audio_folder), report, max_missing)


def audio_path(audio_id: str, audio_folder: Path) -> Path | None:
    """Where the clip of a row lies; None for a text-only row."""
    if audio_id == TEXT_ONLY:
        return None
    return below(audio_folder, audio_id)


def examples(path: Path | str, report: ReadReport, *, audio: Path | str | None = None) -> Iterator[Example]:
    """One example per instruction of a JSON file; `id` is `<file stem>:<row from 1>`, with `:<n>` added in the test form.

    `audio` is the folder that holds `compa_r_train_audios/` (default: the JSON file's), or that folder itself. A non-empty `input`
    follows the instruction on a line of its own. Blanks at the end of an output are dropped; nothing else is altered. A row with an
    empty instruction or output is dropped and counted. Raises `DataError` for a malformed row.
    """
    metadata = Path(path)
    folder = Path(audio) if audio is not None else metadata.parent
    for number, row in json_rows(metadata):
        report.rows += 1
        audio_id = text_field(row, "audio_id", metadata, number)
        meta = meta_of(youtube_of_name(audio_id), **{key: row[key] for key in KEPT if key in row})
        for suffix, pair in _pairs(row, metadata, number):
            question, answer = _question(pair, metadata, number), text_field(pair, "output", metadata, number).rstrip()
            if not question or not answer:
                report.dropped["empty instruction or output"] += 1
                continue
            messages = question_answer(audio_path(audio_id, folder), question, answer)
            yield Example(f"{metadata.stem}:{number}{suffix}", report.source, messages, meta)


def _pairs(row: Row, metadata: Path, number: int) -> list[tuple[str, Row]]:
    if "instruction_output" not in row:
        return [("", row)]
    pairs = row["instruction_output"]
    if not isinstance(pairs, list) or not all(isinstance(pair, dict) for pair in pairs):
        raise DataError(f"{metadata}, row {number}: 'instruction_output' must be a list of objects")
    return [(f":{index}", pair) for index, pair in enumerate(pairs, start=1)]


def _question(pair: Row, metadata: Path, number: int) -> str:
    instruction = text_field(pair, "instruction", metadata, number)
    extra = text_field(pair, "input", metadata, number) if pair.get("input") else ""
    return f"{instruction}\n{extra}" if extra else instruction
