"""Rows of a CSV file with a header, read a line at a time; fields are kept as they are."""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

from alm.data.example import DataError


def csv_rows(
    path: Path, columns: Sequence[str] = (), encoding: str = "utf-8-sig", delimiter: str = ","
) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield `(row number from 1, {column: field})`. Nothing is stripped.

    Raises `DataError` with file and row where the file is missing, is not in `encoding`, lacks one of `columns`, is not CSV, or where
    a row has another number of fields than the header.
    """
    try:
        with path.open(encoding=encoding, newline="\n") as file:  # only "\n" ends a line; csv sees it inside quotes
            reader = csv.reader(file, delimiter=delimiter, strict=True)
            header = next(reader, [])
            if not set(columns) <= set(header) or not header:
                raise DataError(
                    f"{path}: columns {','.join(columns)} expected, got {','.join(header) or 'an empty file'}"
                )
            for number, fields in enumerate(reader, start=1):
                if len(fields) != len(header):
                    raise DataError(
                        f"{path}, row {number} (line {reader.line_num}): {len(header)} fields expected, got {fields}"
                    )
                yield number, dict(zip(header, fields, strict=True))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}). Check the path of the metadata file.") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not {encoding} (byte {error.start}). Convert the file first.") from error
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: not valid CSV ({error})") from error


def field(row: dict[str, str], column: str, path: Path, number: int) -> str:
    """A field that must not be empty. Raises `DataError` with file and row."""
    if not row[column]:
        raise DataError(f"{path}, row {number}: {column!r} is empty")
    return row[column]
