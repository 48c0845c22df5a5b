"""Files of a token store that are whole or absent; its description and its list of failures."""

import itertools
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from alm.data.example import DataError
from alm.data.tokens_format import FORMAT, PARTS, STORE, VERSION, Failure

_TEMPORARY = ".tmp-"
_counter = itertools.count()


def write_atomic(path: Path, data: bytes) -> None:
    """Write a file so that after a kill or a power cut it is there whole, or not at all."""
    # not *.arrow: nobody may take it for a shard
    temporary = path.parent / f"{_TEMPORARY}{os.getpid()}-{next(_counter)}"
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the name, too, must survive a power cut
    finally:
        os.close(folder)


def read_failures(path: Path) -> list[Failure]:
    """Read a list of failures; none where there is no such file."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return [Failure(**json.loads(line)) for line in lines]


def write_failures(path: Path, failures: Sequence[Failure]) -> None:
    """Write failures as JSON lines, in order of path; no file where there are none."""
    if failures:
        lines = [json.dumps(failure._asdict(), ensure_ascii=False) + "\n" for failure in sorted(failures)]
        write_atomic(path, "".join(lines).encode())
    else:
        path.unlink(missing_ok=True)


def is_temporary(path: Path) -> bool:
    """Whether a killed writer left this file."""
    return path.name.startswith(_TEMPORARY)


def remove_temporary(folder: Path) -> None:
    """Remove what killed writers left."""
    for path in folder.glob(f"{_TEMPORARY}*"):
        path.unlink(missing_ok=True)


def read_description(folder: Path) -> dict[str, Any]:
    """`store.json` of a store. Raises `DataError` where there is none or it is of another format."""
    try:
        read = json.loads((folder / STORE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{folder}: not a token store (no {STORE}); recipes/tokenize_corpus.py makes one") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{folder / STORE}: cannot be read ({error})") from error
    description: dict[str, Any] = read if isinstance(read, dict) else {}
    found = (description.get("format"), description.get("version"))
    if found != (FORMAT, VERSION):
        raise DataError(f"{folder / STORE}: format {found} found, {(FORMAT, VERSION)} expected; tokenise again")
    return description


def unmerged_parts(folder: Path) -> list[Path]:
    """Parts of a build that is not finished."""
    return sorted((folder / PARTS).glob("*.arrow"))
