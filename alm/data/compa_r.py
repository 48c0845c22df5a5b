"""CompA-R (GAMA): instructions that ask for reasoning about AudioSet-strong clips.

Training: a JSON list of `{"audio_id": "./compa_r_train_audios/<ytid>.wav", "instruction": …, "output": …}`, sometimes with
`input`, `dataset`, `task`. Test: `{"audio_id", "caption", "timestamp_events", "instruction_output": [{"instruction", "output"}, …]}`.
`audio_id` "empty" marks a text-only row (https://github.com/Sreyan88/GAMA).
"""

from collections.abc import Iterator
from pathlib import Path

from alm.data.example import DataError, Example, ReadReport, keep_with_audio, question_answer
from alm.data.json_rows import Row, json_rows, text_field

TEXT_ONLY = "empty"
KEPT: tuple[str, ...] = ("audio_id", "dataset", "task", "caption", "timestamp_events")
"""Columns that go into an example's `meta`."""


def read(
    metadata: Path | str, audio_folder: Path | str, report: ReadReport | None = None, max_missing: float | None = 0.1
) -> Iterator[Example]:
    """One example per instruction of `metadata`; `id` is `<file stem>:<row from 1>`, with `:<n>` added in the test form.

    `audio_folder` is the folder that holds `compa_r_train_audios/` (or that folder itself). A non-empty `input` follows the
    instruction on a line of its own. Blanks at the end of an output are dropped; nothing else is altered. A row with an empty
    instruction or output is dropped and counted. Raises `DataError` for a malformed row, and when more than the share
    `max_missing` of the examples lacks its audio (None: no limit).
    """
    report = report or ReadReport("compa_r")
    return keep_with_audio(_examples(Path(metadata), Path(audio_folder), report), report, max_missing)


def audio_path(audio_id: str, audio_folder: Path) -> Path | None:
    """Where the clip of a row lies; None for a text-only row."""
    if audio_id == TEXT_ONLY:
        return None
    relative = Path(audio_id)  # Path drops the "./"
    if len(relative.parts) > 1 and relative.parts[0] == audio_folder.name:
        return audio_folder.parent / relative
    return audio_folder / relative


def _examples(metadata: Path, audio_folder: Path, report: ReadReport) -> Iterator[Example]:
    for number, row in json_rows(metadata):
        report.rows += 1
        audio_id = text_field(row, "audio_id", metadata, number)
        meta = {key: row[key] for key in KEPT if key in row}
        for suffix, pair in _pairs(row, metadata, number):
            question, answer = _question(pair, metadata, number), text_field(pair, "output", metadata, number).rstrip()
            if not question or not answer:
                report.dropped["empty instruction or output"] += 1
                continue
            messages = question_answer(audio_path(audio_id, audio_folder), question, answer)
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
