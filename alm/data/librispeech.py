"""LibriSpeech: read English speech, 16 kHz, with transcripts in capitals without punctuation (https://www.openslr.org/12).

On disk `<split>/<speaker>/<chapter>/<utterance>.flac`, and in each chapter's folder `<speaker>-<chapter>.trans.txt` with lines
`<utterance> <TEXT>`. On the Hub `openslr/librispeech_asr` (configurations clean, other, all; splits like train.100, or with all
train.clean.100).
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from alm.data.example import TRANSCRIPT, Content, DataError, Example, ReadReport, clip_with_text
from alm.data.json_rows import read_text, text_field
from alm.data.origins import librivox, meta_of
from alm.data.parquet_rows import audio_of, is_parquet, parquet_rows

Case = Literal["as_is", "lower"]


def examples(
    path: Path | str, report: ReadReport, *, split: str | None = None, config: str | None = None, case: Case = "as_is"
) -> Iterator[Example]:
    """One example per utterance of a folder (all below it, or below its folder `split`), or of a split in Parquet.

    `id` is the utterance's. `case="lower"` loses nothing, because the text has capitals only, and makes one text of it with sets that
    are written in the usual way. Utterances without text are dropped and counted. Raises `DataError` for a malformed line.
    """
    if is_parquet(path):
        return _of_parquet(path, report, split or "train.100", config, case)
    return _of_disk(Path(path) / (split or ""), report, case)


def _of_disk(folder: Path, report: ReadReport, case: Case) -> Iterator[Example]:
    found = False
    for transcripts in _sorted_files(folder, ".trans.txt"):
        found = True
        for number, line in enumerate(read_text(transcripts).split("\n"), start=1):
            if not line:
                continue
            report.rows += 1
            utterance, blank, text = line.rstrip("\r").partition(" ")
            if not utterance or not blank:
                raise DataError(f"{transcripts}, line {number}: '<utterance> <TEXT>' expected, got {line!r:.80}")
            audio = {"path": str(transcripts.parent / f"{utterance}.flac")}
            yield from _example(utterance, audio, text, report, case)
    if not found:
        raise DataError(
            f"{folder}: no *.trans.txt in it or below; the folder that LibriSpeech's archives unpack to is expected"
        )


def _of_parquet(name: Path | str, report: ReadReport, split: str, config: str | None, case: Case) -> Iterator[Example]:
    for found in parquet_rows(name, ["audio", "text", "id"], report, split, config):
        audio = audio_of(found, report)
        if audio is not None:
            text = text_field(found.row, "text", found.shard, found.number)
            yield from _example(text_field(found.row, "id", found.shard, found.number), audio, text, report, case)


def _example(utterance: str, audio: Content, text: str, report: ReadReport, case: Case) -> Iterator[Example]:
    if not text.strip():
        report.dropped["empty text"] += 1
        return
    text = text.lower() if case == "lower" else text
    meta: dict[str, Any] = meta_of(librivox(utterance), speaker=utterance.partition("-")[0])
    yield clip_with_text(utterance, report.source, audio, text, TRANSCRIPT, meta)


def _sorted_files(folder: Path, suffix: str) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob(f"*{suffix}")) if path.is_file())
