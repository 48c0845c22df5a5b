"""What the files of multiple-choice benchmarks have in common: forms of their choices, and where their clips lie."""

import json
from pathlib import Path
from typing import Any

from alm.data.example import DataError


def choices_field(value: Any, path: Path | str, number: int) -> tuple[str, ...]:
    """A list of texts, or the same list stored as JSON text (some mirrors do). Raises `DataError`."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except json.JSONDecodeError as error:
            raise DataError(f"{path}, row {number}: 'choices' is text but not a JSON list ({error.msg})") from error
    if not isinstance(value, list) or not value or not all(isinstance(choice, str) for choice in value):
        raise DataError(f"{path}, row {number}: 'choices' must be a list of texts with at least one, got {value!r:.80}")
    return tuple(value)


def find_audio(item_path: str, folder: Path) -> Path:
    """Where an item's clip lies: `folder/<file name>`, or `folder/<path as written>` when only that one exists.

    The data sets' paths read `./audio/<id>.wav`, so `folder` may be its `audio/` or the folder above.
    """
    flat, nested = folder / Path(item_path).name, folder / item_path
    return nested if nested.is_file() and not flat.is_file() else flat
