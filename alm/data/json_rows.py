"""Rows of a JSON file, whichever of its forms it has: one list, one object per line, or a list inside an object."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from alm.data.example import DataError

Row = dict[str, Any]
_CHUNK = 1 << 18  # characters read at a time: files of hundreds of thousands of rows are never in memory whole
_BETWEEN = re.compile(r"[\s,]*")


def read_text(path: Path) -> str:
    """The file's text, UTF-8 with or without a byte-order mark. Raises `DataError` when missing or not UTF-8."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise _unreadable(path, error) from error
    except UnicodeDecodeError as error:
        raise _not_utf8(path, error) from error


def json_rows(path: Path, key: str | None = None) -> Iterator[tuple[int, Row]]:
    """Yield `(row number from 1, object)` of a JSON list or of JSON lines, told apart by content and not by suffix.

    Several data sets keep JSON lines in files called .json. Blank lines are skipped but counted, so that the number is the
    line's. `key`: the list is the value of this key of one object, whose other keys may only stand before it. The file is read in
    pieces; memory does not grow with it. Raises `DataError` with file and row where a row is not a JSON object.
    """
    try:
        # newline="\n": in other modes a lone "\r" would end a line, and str.splitlines breaks at U+2028, legal inside a JSON string
        with path.open(encoding="utf-8-sig", newline="\n") as file:
            head = file.read(_CHUNK)
            listed = _list_start(path, head, key)
            lines = _parse_list(path, file, head, listed, key is None) if listed else _parse_lines(path, file, head)
            for number, row in lines:
                if not isinstance(row, dict):
                    raise DataError(f"{path}, row {number}: a JSON object expected, got {type(row).__name__}")
                yield number, row
    except OSError as error:
        raise _unreadable(path, error) from error
    except UnicodeDecodeError as error:
        raise _not_utf8(path, error) from error


def text_field(row: Row, key: str, path: Path | str, number: int) -> str:
    """`row[key]`, which must be text. Raises `DataError` with file, row and the keys that are there."""
    value = row.get(key)
    if not isinstance(value, str):
        got = type(value).__name__ if key in row else "no such key"
        raise DataError(f"{path}, row {number}: {key!r} must be text, got {got} (keys here: {told_keys(row)})")
    return value


def told_keys(row: Row) -> str:
    """A row's keys for a message, the first twenty at most: what is taken for a row may be a whole file in one object."""
    return ", ".join(map(str, [*row][:20])) + (f" and {len(row) - 20:,} more" if len(row) > 20 else "")


def _list_start(path: Path, head: str, key: str | None) -> int:
    """Position behind the list's "[", 0 where the file holds lines."""
    pattern = r"\s*\[" if key is None else rf'\s*\{{.*?"{re.escape(key)}"\s*:\s*\['
    start = re.match(pattern, head, re.DOTALL)
    if start is None and key is not None:
        raise DataError(f'{path}: {{"{key}": [ … ]}} expected, no such list in it')
    return start.end() if start else 0


def _parse_list(path: Path, file: TextIO, text: str, position: int, whole: bool) -> Iterator[tuple[int, Any]]:
    decoder, number, lines = json.JSONDecoder(), 1, 1
    while True:
        position = _BETWEEN.match(text, position).end()  # type: ignore[union-attr]  # matches the empty string, too
        if text[position : position + 1] == "]":
            if whole and (text[position + 1 :] + file.read()).strip():
                raise DataError(f"{path}: more follows after the end of the list; is it two files in one?")
            return
        try:
            row, end = decoder.raw_decode(text, position)
        except json.JSONDecodeError as error:
            more = file.read(max(_CHUNK, len(text) - position))
            if not more:
                line = lines + text.count("\n", 0, error.pos)
                raise DataError(
                    f"{path}: not valid JSON at line {line} ({error.msg}); is the download whole?"
                ) from error
            lines += text.count("\n", 0, position)
            text, position = text[position:] + more, 0
            continue
        yield number, row
        number, position = number + 1, end


def _parse_lines(path: Path, file: TextIO, head: str) -> Iterator[tuple[int, Any]]:
    for number, line in enumerate(_lines(file, head), start=1):
        if not line.strip():
            continue
        try:
            yield number, json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(
                f"{path}, line {number}: not valid JSON ({error.msg}); a JSON list or one object per line expected"
            ) from error


def _lines(file: TextIO, head: str) -> Iterator[str]:
    *whole, last = head.split("\n")
    yield from whole
    yield last + file.readline()
    yield from file


def _unreadable(path: Path, error: OSError) -> DataError:
    return DataError(f"{path}: cannot be read ({error.strerror}). Check the path of the metadata file.")


def _not_utf8(path: Path, error: UnicodeDecodeError) -> DataError:
    return DataError(f"{path}: not UTF-8 (byte {error.start}). Convert the file to UTF-8 first.")
