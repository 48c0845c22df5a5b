"""LibriTTS and LibriTTS-R: read English speech, 24 kHz, with punctuation (https://www.openslr.org/60, https://www.openslr.org/141).

On disk `<split>/<speaker>/<chapter>/<utterance>.wav`, beside it `.normalized.txt` (numbers and abbreviations written out) and
`.original.txt`. On the Hub `mythicinfinity/libritts` and `mythicinfinity/libritts_r` (configurations clean, other, all, dev; splits like
train.clean.100).
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from alm.data.example import TRANSCRIPT, Content, DataError, Example, ReadReport, clip_with_text
from alm.data.json_rows import read_text, text_field
from alm.data.origins import librivox, meta_of
from alm.data.parquet_rows import audio_of, is_parquet, parquet_rows

Text = Literal["normalized", "original"]


def examples(
    path: Path | str,
    report: ReadReport,
    *,
    split: str | None = None,
    config: str | None = None,
    text: Text = "normalized",
) -> Iterator[Example]:
    """One example per utterance of a folder (all below it, or below its folder `split`), or of a split in Parquet.

    `id` is the utterance's. A WAV file without its text and an empty text are dropped and counted; a text without its WAV file counts
    as missing audio. Raises `DataError` where there is nothing of the kind.
    """
    if is_parquet(path):
        return _of_parquet(path, report, split or "train.clean.100", config, text)
    return _of_disk(Path(path) / (split or ""), report, text)


def _of_disk(folder: Path, report: ReadReport, text: Text) -> Iterator[Example]:
    ending = f".{text}.txt"
    for parent, folders, names in os.walk(folder, followlinks=True):
        folders.sort()
        texts = {name.removesuffix(ending) for name in names if name.endswith(ending)}
        for utterance in sorted(texts | {name.removesuffix(".wav") for name in names if name.endswith(".wav")}):
            report.rows += 1
            if utterance not in texts:
                report.dropped[f"no {ending}"] += 1
                continue
            said = read_text(Path(parent) / f"{utterance}{ending}").removesuffix(
                "\n"
            )  # the file's line end, not the text's
            yield from _example(utterance, {"path": str(Path(parent) / f"{utterance}.wav")}, said, report)
    if not report.rows:
        raise DataError(
            f"{folder}: no *{ending} in it or below; the folder that LibriTTS's archives unpack to is expected"
        )


def _of_parquet(name: Path | str, report: ReadReport, split: str, config: str | None, text: Text) -> Iterator[Example]:
    column = f"text_{text}"
    for found in parquet_rows(name, ["audio", column, "id"], report, split, config):
        audio = audio_of(found, report)
        if audio is not None:
            said = text_field(found.row, column, found.shard, found.number)
            yield from _example(text_field(found.row, "id", found.shard, found.number), audio, said, report)


def _example(utterance: str, audio: Content, text: str, report: ReadReport) -> Iterator[Example]:
    if not text.strip():
        report.dropped["empty text"] += 1
        return
    meta = meta_of(librivox(utterance), speaker=utterance.partition("_")[0])
    yield clip_with_text(utterance, report.source, audio, text, TRANSCRIPT, meta)
