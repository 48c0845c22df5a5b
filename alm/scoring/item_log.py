"""The rows of a run's items, one JSON line each, appended as they come: a run that is killed goes on from there."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from glob import escape
from pathlib import Path
from types import TracebackType
from typing import Any

from alm.data.example import DataError
from alm.scoring.results import write_lines_atomically

Row = dict[str, Any]


class ItemLog:
    """Rows by item id, kept in a JSON-lines file; every row carries the run's `key`.

    The key (`alm.scoring.manifest.resume_key`) says what decided the row: weights, vocabulary, data, prompt, decoding, code. With
    `resume`, rows of this key for which `is_done` holds are taken over; a last line that a kill tore is dropped. Rows of
    another key are never used. A former file that is not wholly taken over is kept as `<name>.old`.

    Of several processes each has a file of its own, process `part` above 0 `<name>.part<part>` beside that of part 0, whose rows it
    knows. Part 0 is opened first, and takes over what the parts of a killed run hold.

    Raises `DataError` for a file with a broken line elsewhere than at its end.
    """

    def __init__(
        self,
        path: Path | str,
        key: str,
        resume: bool = False,
        is_done: Callable[[Row], bool] = lambda row: True,
        part: int = 0,
    ) -> None:
        self.path, self.key, self.part = Path(path), key, part
        self.rows: dict[str, Row] = {}
        self.foreign = 0
        """Rows of another key that the file held."""
        if part:
            self.rows = {row["id"]: row for row in read_rows(self.path) if row.get("key") == key and is_done(row)}
            self.path = self.path.with_name(f"{self.path.name}.part{part}")
        else:
            self._absorb_parts()
            if self.path.exists():
                self._take_over(resume, is_done)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self.path.open("w" if part else "a", encoding="utf-8")

    def append(self, rows: Sequence[Row]) -> None:
        """Write the rows (each with its `id`) and return only when they are on the disk."""
        stamped = [{"key": self.key, **row} for row in rows]
        self._file.write("".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in stamped))
        self._file.flush()
        os.fsync(self._file.fileno())
        self.rows.update((row["id"], row) for row in stamped)

    def complete(self, rows: Mapping[str, Row], ids: Sequence[str]) -> None:
        """Take in the rows of all parts; part 0 writes them, those of `ids` in this order, and removes the other parts."""
        self.rows = {name: rows[name] for name in ids if name in rows} | dict(rows)
        if self.part == 0:
            self.close()
            write_lines_atomically(self.path, list(self.rows.values()))
            self._file = self.path.open("a", encoding="utf-8")
            for part in self._parts():
                part.unlink()

    def close(self) -> None:
        """Close the file; the rows stay readable."""
        self._file.close()

    def __enter__(self) -> "ItemLog":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _parts(self) -> list[Path]:
        return sorted(self.path.parent.glob(f"{escape(self.path.name)}.part*"))

    def _absorb_parts(self) -> None:
        """Bring what the processes of a killed run have left into one file."""
        if parts := self._parts():
            files = [path for path in (self.path, *parts) if path.exists()]
            write_lines_atomically(self.path, [row for path in files for row in read_rows(path)])
            for part in parts:
                part.unlink()

    def _take_over(self, resume: bool, is_done: Callable[[Row], bool]) -> None:
        found = read_rows(self.path) if resume else []
        own = [row for row in found if row.get("key") == self.key]
        self.foreign = len(found) - len(own)
        self.rows = {row["id"]: row for row in own if is_done(row)}
        if len(self.rows) < len(found) or not resume:
            self.path.replace(self.path.with_name(self.path.name + ".old"))
        # the torn line, if any, must go before something is appended to it
        write_lines_atomically(self.path, list(self.rows.values()))


def read_rows(path: Path) -> list[Row]:
    """All whole rows of a log; what follows the last line end was torn by a kill and is left out."""
    lines = path.read_bytes().split(b"\n")[:-1]
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
        except ValueError as error:
            raise DataError(
                f"{path}, line {number}: not a row of a run ({error}); move the file away to start afresh"
            ) from error
        if not isinstance(row, dict) or not isinstance(row.get("id"), str):
            raise DataError(
                f"{path}, line {number}: a JSON object with an 'id' expected; is this another program's file?"
            )
        rows.append(row)
    return rows
