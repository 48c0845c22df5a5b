"""MusicQA (MU-LLaMA): `PretrainMusicQA.json`, `FinetuneMusicQA.json`, `EvalMusicQA.json`.

A JSON list of `{"audio_name": "012542.wav", "conversation": [{"from": "human", "value": …}, {"from": "gpt", "value": …}]}`.
The data set's own loader script stops after 50 items; the files are read directly (https://huggingface.co/datasets/mu-llama/MusicQA).
"""

from collections.abc import Iterator
from pathlib import Path

from alm.data.example import DataError, Example, Message, ReadReport, keep_with_audio
from alm.data.json_rows import Row, json_rows, text_field

SPEAKERS = ("human", "gpt")
"""Who speaks in turn; the user first."""


def read(
    metadata: Path | str, audio_folder: Path | str, report: ReadReport | None = None, max_missing: float | None = 0.1
) -> Iterator[Example]:
    """One example per row of `metadata`, with audio `audio_folder/audio_name`; `id` is `<file stem>:<row from 1>`.

    Texts and file names are kept as they are, but blanks at the end of an answer are dropped: the model should end its turn
    there, not first say a blank. A row with an empty answer is dropped and counted. Raises `DataError` for a malformed row
    (file and row given) and when more than the share `max_missing` of the examples lacks its audio (None: no limit).
    """
    report = report or ReadReport("musicqa")
    return keep_with_audio(_examples(Path(metadata), Path(audio_folder), report), report, max_missing)


def _examples(metadata: Path, audio_folder: Path, report: ReadReport) -> Iterator[Example]:
    for number, row in json_rows(metadata):
        report.rows += 1
        audio_name = text_field(row, "audio_name", metadata, number)
        messages = _messages(row, audio_folder / audio_name, metadata, number)
        if any(not message["content"][-1]["text"] for message in messages):
            report.dropped["empty question or answer"] += 1
            continue
        yield Example(f"{metadata.stem}:{number}", report.source, messages, {"audio_name": audio_name})


def _messages(row: Row, audio: Path, metadata: Path, number: int) -> list[Message]:
    turns = row.get("conversation")
    if not isinstance(turns, list) or not turns or len(turns) % 2:
        raise DataError(f"{metadata}, row {number}: 'conversation' must be a list of questions and answers in turn")
    messages: list[Message] = []
    for position, turn in enumerate(turns):
        speaker = SPEAKERS[position % 2]
        if not isinstance(turn, dict) or turn.get("from") != speaker:
            raise DataError(f"{metadata}, row {number}: turn {position + 1} of 'conversation' must be from {speaker!r}")
        text = text_field(turn, "value", metadata, number)
        if speaker == "human":
            messages.append({"role": "user", "content": [{"type": "text", "text": text}]})
        else:
            messages.append({"role": "assistant", "content": [{"type": "text", "text": text.rstrip()}]})
    messages[0]["content"].insert(0, {"type": "audio", "path": str(audio)})
    return messages
