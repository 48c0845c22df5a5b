"""ClothoAQA: `clotho_aqa_{train,val,test}.csv`, three annotators to a question.

Columns `file_name,QuestionText,answer,confidence`, one row per annotator (Zenodo 6473207); audio in `audio_files/`. Some file
names end in a blank before ".wav": names are never stripped.
"""

import csv
from collections import Counter
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Literal

from alm.data.example import DataError, Example, ReadReport, keep_with_audio, question_answer
from alm.data.json_rows import read_text

COLUMNS = ["file_name", "QuestionText", "answer", "confidence"]
Aggregate = Literal["rows", "majority"]


def read(
    metadata: Path | str,
    audio_folder: Path | str,
    report: ReadReport | None = None,
    max_missing: float | None = 0.1,
    aggregate: Aggregate = "rows",
) -> Iterator[Example]:
    """Examples of `metadata`, with audio `audio_folder/file_name`.

    `aggregate="rows"`: one example per annotator's row, as the paper counts them. `"majority"`: one per question (file and
    text) on whose answer at least two in three annotators agree; the others are dropped and counted. `id` is `<file stem>:<row
    from 1>`, of a question's first row. Blanks at the end of an answer are dropped; nothing else is altered. Raises `DataError`
    for a malformed file or row, and when more than the share `max_missing` lacks its audio (None: no limit).
    """
    if aggregate not in ("rows", "majority"):
        raise DataError(f"aggregate must be 'rows' or 'majority', got {aggregate!r}")
    report = report or ReadReport("clothoaqa")
    path, folder = Path(metadata), Path(audio_folder)
    examples = _by_row(path, folder, report) if aggregate == "rows" else _by_majority(path, folder, report)
    return keep_with_audio(examples, report, max_missing)


def _rows(metadata: Path, report: ReadReport) -> Iterator[tuple[int, list[str]]]:
    """`(row from 1, [file_name, question, answer, confidence])`."""
    # StringIO and not splitlines: only "\n" ends a line, and csv needs to see it inside quotes
    reader = csv.reader(StringIO(read_text(metadata)), strict=True)
    try:
        header = next(reader, [])
        if header != COLUMNS:
            raise DataError(
                f"{metadata}: columns {','.join(COLUMNS)} expected, got {','.join(header) or 'an empty file'}"
            )
        for number, row in enumerate(reader, start=1):
            if len(row) != len(COLUMNS) or not row[0] or not row[1]:
                raise DataError(
                    f"{metadata}, row {number} (line {reader.line_num}): {len(COLUMNS)} fields with a file name and a question "
                    f"expected, got {row}"
                )
            report.rows += 1
            if not row[2].strip():
                report.dropped["empty answer"] += 1
                continue
            yield number, [row[0], row[1], row[2].rstrip(), row[3]]
    except csv.Error as error:
        raise DataError(f"{metadata}, line {reader.line_num}: not valid CSV ({error})") from error


def _by_row(metadata: Path, folder: Path, report: ReadReport) -> Iterator[Example]:
    for number, (file_name, question, answer, confidence) in _rows(metadata, report):
        meta = {"file_name": file_name, "confidence": confidence}
        messages = question_answer(folder / file_name, question, answer)
        yield Example(f"{metadata.stem}:{number}", report.source, messages, meta)


def _by_majority(metadata: Path, folder: Path, report: ReadReport) -> Iterator[Example]:
    questions: dict[tuple[str, str], tuple[int, Counter[str]]] = {}
    for number, (file_name, question, answer, _) in _rows(metadata, report):
        questions.setdefault((file_name, question), (number, Counter()))[1][answer] += 1
    for (file_name, question), (number, votes) in questions.items():
        answer, agreeing = votes.most_common(1)[0]
        if agreeing < 2 or 3 * agreeing < 2 * votes.total():
            report.dropped["annotators disagree"] += 1
            continue
        meta = {"file_name": file_name, "votes": dict(votes)}
        messages = question_answer(folder / file_name, question, answer)
        yield Example(f"{metadata.stem}:{number}", report.source, messages, meta)
