"""Answers that some system has stored, to be scored without it."""

from pathlib import Path

from alm.data.example import DataError
from alm.data.json_rows import json_rows
from alm.scoring.answers import Answer

PREDICTION_KEYS = ("prediction", "answer_prediction", "model_output")
"""Ours, MMAR's and MMAU's name of the model's text."""


def read_predictions(path: Path | str) -> dict[str, Answer]:
    """Stored answers: a JSON list or JSON lines of rows with `id` and `prediction` (or `answer_prediction`, `model_output`).

    A row whose prediction is null counts as missing, and so does one without any of the keys. Raises `DataError`, with file and
    row, for a row without `id`, a repeated id, or a prediction that is not text.
    """
    path = Path(path)
    answers: dict[str, Answer] = {}
    seen: dict[str, int] = {}
    for number, row in json_rows(path):
        item_id = row.get("id")
        if not isinstance(item_id, str):
            raise DataError(
                f"{path}, row {number}: 'id' must be the question's id as text (keys here: {', '.join(row)})"
            )
        if item_id in seen:
            raise DataError(
                f"{path}, row {number}: id {item_id!r} was given in row {seen[item_id]} already; keep one answer"
            )
        seen[item_id] = number
        value = next((row[key] for key in PREDICTION_KEYS if key in row), None)
        if value is not None and not isinstance(value, str):
            raise DataError(
                f"{path}, row {number}: a prediction must be text, got {type(value).__name__}: {value!r:.40}"
            )
        if value is not None:
            answers[item_id] = Answer(prediction=value)
    return answers
