"""ClothoAQA: `clotho_aqa_{train,val,test}.csv`, three annotators to a question.

Columns `file_name,QuestionText,answer,confidence`, one row per annotator (Zenodo 6473207); audio in `audio_files/`. Some file
names end in a blank before ".wav": names are never stripped. The clips are Clotho's, of its test split too: of the 1,174 clips of the
training questions, 289 are in Clotho's evaluation split (`alm.data.leaks`).
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from alm.data.clothoaqa_rules import RULES, Question
from alm.data.csv_rows import csv_rows
from alm.data.example import DataError, Example, ReadReport, keep_with_audio, question_answer
from alm.data.origins import clotho, meta_of

COLUMNS = ["file_name", "QuestionText", "answer", "confidence"]
Aggregate = Literal["rows", "unanimous", "binary", "majority", "lmms"]
Split = Literal["train", "val", "test"]


def read(
    metadata: Path | str,
    audio_folder: Path | str,
    report: ReadReport | None = None,
    max_missing: float | None = 0.1,
    aggregate: Aggregate = "rows",
) -> Iterator[Example]:
    """`examples` whose audio is there. Raises `DataError` where more than the share `max_missing` lacks its audio (None: no limit)."""
    report = report or ReadReport("clothoaqa")
    return keep_with_audio(examples(metadata, report, audio=audio_folder, aggregate=aggregate), report, max_missing)


def examples(
    path: Path | str,
    report: ReadReport,
    *,
    audio: Path | str | None = None,
    split: Split = "train",
    aggregate: Aggregate = "rows",
) -> Iterator[Example]:
    """Examples of a CSV file, or of the split's in a folder, with audio `audio/file_name` (default: `audio_files` beside the CSV).

    `aggregate="rows"`: one example per annotator's row, as the paper counts them. Otherwise one per question (file and text) for
    which the rule of that name (`alm.data.clothoaqa_rules`) has an answer; the others are dropped and counted. `id` is `<file
    stem>:<row from 1>`, of a question's first row. Blanks at the end of an answer are dropped; nothing else is altered. Raises
    `DataError` for a malformed file or row.
    """
    if aggregate != "rows" and aggregate not in RULES:
        raise DataError(f"aggregate must be 'rows', {', '.join(map(repr, RULES))}, got {aggregate!r}")
    metadata = Path(path) / f"clotho_aqa_{split}.csv" if Path(path).is_dir() else Path(path)
    folder = Path(audio) if audio is not None else metadata.parent / "audio_files"
    return _by_row(metadata, folder, report) if aggregate == "rows" else _by_rule(metadata, folder, report, aggregate)


def questions(metadata: Path | str, report: ReadReport | None = None) -> list[tuple[int, Question]]:
    """`(first row from 1, question)` in file order; a question asked twice about a clip is one. Raises `DataError` for a malformed row."""
    found: dict[tuple[str, str], tuple[int, list[tuple[str, str]]]] = {}
    for row in _rows(Path(metadata), report or ReadReport("clothoaqa")):
        answers = found.setdefault((row.file_name, row.question), (row.number, []))[1]
        answers.append((row.answer, row.confidence))
    return [
        (number, Question(file_name, text, *map(tuple, zip(*answers, strict=True))))
        for (file_name, text), (number, answers) in found.items()
    ]


class _Row(NamedTuple):
    number: int
    file_name: str
    question: str
    answer: str
    confidence: str


def _rows(metadata: Path, report: ReadReport) -> Iterator[_Row]:
    for number, row in csv_rows(metadata, COLUMNS):
        file_name, question, answer, confidence = (row[column] for column in COLUMNS)
        if not file_name or not question:
            raise DataError(f"{metadata}, row {number}: a file name and a question expected, got {list(row.values())}")
        report.rows += 1
        if not answer.strip():
            report.dropped["empty answer"] += 1
            continue
        yield _Row(number, file_name, question, answer.rstrip(), confidence)


def _by_row(metadata: Path, folder: Path, report: ReadReport) -> Iterator[Example]:
    for number, file_name, question, answer, confidence in _rows(metadata, report):
        meta = meta_of(clotho(file_name), file_name=file_name, confidence=confidence)
        messages = question_answer(folder / file_name, question, answer)
        yield Example(f"{metadata.stem}:{number}", report.source, messages, meta)


def _by_rule(metadata: Path, folder: Path, report: ReadReport, rule: Aggregate) -> Iterator[Example]:
    for number, question in questions(metadata, report):
        answer = RULES[rule](question)  # type: ignore[index]  # not "rows"
        if answer is None:
            report.dropped[f"left out by the rule {rule!r}"] += 1
            continue
        votes = {answer: question.answers.count(answer) for answer in question.answers}
        meta = meta_of(clotho(question.file_name), file_name=question.file_name, votes=votes)
        messages = question_answer(folder / question.file_name, question.text, answer)
        yield Example(f"{metadata.stem}:{number}", report.source, messages, meta)
