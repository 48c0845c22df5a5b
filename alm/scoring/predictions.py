"""Answers that some system has stored, to be scored without it."""

from pathlib import Path

from alm.data.example import DataError
from alm.data.json_rows import json_rows, told_keys
from alm.scoring.answers import Answer

PREDICTION_KEYS = ("prediction", "answer_prediction", "model_output", "model_prediction")
"""Ours, MMAR's and MMAU's names of the model's text (MMAU's program reads the one, its README asks for the other)."""


def read_predictions(path: Path | str) -> dict[str, Answer]:
    """Stored answers: a JSON list or JSON lines of rows with `id` and one of `PREDICTION_KEYS`, the first that is not null.

    A row whose prediction is null counts as missing, and so does one without any of the keys. Raises `DataError`, with file and
    row, for a row without `id`, a repeated id, a prediction that is not text, and where no row has one.
    """
    path = Path(path)
    answers: dict[str, Answer] = {}
    seen: dict[str, int] = {}
    for number, row in json_rows(path):
        item_id = row.get("id")
        if not isinstance(item_id, str):
            raise DataError(
                f"{path}, row {number}: 'id' must be the question's id as text (keys here: {told_keys(row)})"
            )
        if item_id in seen:
            raise DataError(
                f"{path}, row {number}: id {item_id!r} was given in row {seen[item_id]} already; keep one answer"
            )
        seen[item_id] = number
        value = next((row[key] for key in PREDICTION_KEYS if row.get(key) is not None), None)
        if value is not None and not isinstance(value, str):
            raise DataError(
                f"{path}, row {number}: a prediction must be text, got {type(value).__name__}: {value!r:.40}"
            )
        if value is not None:
            answers[item_id] = Answer(prediction=value)
    if not answers:
        raise DataError(
            f"{path}: none of its {len(seen)} rows has an answer; it stands as text under 'id' and one of {', '.join(PREDICTION_KEYS)}"
        )
    return answers
