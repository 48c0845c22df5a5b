"""MusicQA (MU-LLaMA): `PretrainMusicQA.json`, `FinetuneMusicQA.json`, `EvalMusicQA.json`.

A JSON list of `{"audio_name": "012542.wav", "conversation": [{"from": "human", "value": …}, {"from": "gpt", "value": …}]}`.
The data set's own loader script stops after 50 items; the files are read directly (https://huggingface.co/datasets/mu-llama/MusicQA).
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from alm.data.example import DataError, Example, Message, ReadReport, keep_with_audio
from alm.data.json_rows import Row, json_rows, text_field
from alm.data.origins import meta_of, youtube_of_name

Split = Literal["pretrain", "finetune", "eval"]
SPEAKERS = ("human", "gpt")
"""Who speaks in turn; the user first."""


def read(
    metadata: Path | str, audio_folder: Path | str, report: ReadReport | None = None, max_missing: float | None = 0.1
) -> Iterator[Example]:
    """`examples` whose audio is there. Raises `DataError` where more than the share `max_missing` lacks its audio (None: no limit)."""
    report = report or ReadReport("musicqa")
    return keep_with_audio(examples(metadata, report, audio=audio_folder), report, max_missing)


def examples(
    path: Path | str, report: ReadReport, *, audio: Path | str | None = None, split: Split = "finetune"
) -> Iterator[Example]:
    """One example per row of a JSON file, or of the split's in a folder; `id` is `<file stem>:<row from 1>`.

    The clip is `audio/audio_name` (default: `audios` beside the JSON file, as the data set's archive unpacks). Texts and file names
    are kept as they are, but blanks at the end of an answer are dropped: the model should end its turn there, not first say a blank.
    A row with an empty answer is dropped and counted. Raises `DataError` for a malformed row, with file and row.
    """
    metadata = Path(path) / f"{split.title()}MusicQA.json" if Path(path).is_dir() else Path(path)
    folder = Path(audio) if audio is not None else metadata.parent / "audios"
    for number, row in json_rows(metadata):
        report.rows += 1
        audio_name = text_field(row, "audio_name", metadata, number)
        messages = _messages(row, folder / audio_name, metadata, number)
        if any(not message["content"][-1]["text"] for message in messages):
            report.dropped["empty question or answer"] += 1
            continue
        meta = meta_of(
            youtube_of_name(audio_name), audio_name=audio_name
        )  # the clips of PretrainMusicQA are MusicCaps'
        yield Example(f"{metadata.stem}:{number}", report.source, messages, meta)


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
