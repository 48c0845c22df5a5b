"""Rows of a JSON file, whichever of its two forms it has: one list, or one object per line."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from alm.data.example import DataError

Row = dict[str, Any]


def read_text(path: Path) -> str:
    """The file's text, UTF-8 with or without a byte-order mark. Raises `DataError` when missing or not UTF-8."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}). Check the path of the metadata file.") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 (byte {error.start}). Convert the file to UTF-8 first.") from error


def json_rows(path: Path) -> Iterator[tuple[int, Row]]:
    """Yield `(row number from 1, object)` of a JSON list or of JSON lines, told apart by content and not by suffix.

    Several data sets keep JSON lines in files called .json. Blank lines are skipped but counted, so that the number is the
    line's. Raises `DataError` with file and row where a row is not a JSON object.
    """
    text = read_text(path)
    for number, row in _parse_list(path, text) if text.lstrip()[:1] == "[" else _parse_lines(path, text):
        if not isinstance(row, dict):
            raise DataError(f"{path}, row {number}: a JSON object expected, got {type(row).__name__}")
        yield number, row


def text_field(row: Row, key: str, path: Path, number: int) -> str:
    """`row[key]`, which must be text. Raises `DataError` with file, row and the keys that are there."""
    value = row.get(key)
    if not isinstance(value, str):
        got = type(value).__name__ if key in row else "no such key"
        raise DataError(
            f"{path}, row {number}: {key!r} must be text, got {got} (keys here: {', '.join(map(str, row))})"
        )
    return value


def _parse_list(path: Path, text: str) -> Iterator[tuple[int, Any]]:
    try:
        yield from enumerate(json.loads(text), start=1)
    except json.JSONDecodeError as error:
        raise DataError(
            f"{path}: not valid JSON at line {error.lineno} ({error.msg}); is the download whole?"
        ) from error


def _parse_lines(path: Path, text: str) -> Iterator[tuple[int, Any]]:
    # split on "\n" alone: str.splitlines also breaks at U+2028, which is legal inside a JSON string
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            yield number, json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(
                f"{path}, line {number}: not valid JSON ({error.msg}); a JSON list or one object per line expected"
            ) from error
