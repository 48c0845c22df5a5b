"""Sequences on disk, small and mapped into memory: text as ids, a clip as one number that stands for its codes in the token store.

A hundred thousand questions about a thousand clips are a few megabytes this way; a sequence is spelled out when it is asked for.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from alm.data.example import DataError
from alm.encoding import IGNORED

DESCRIPTION, ROWS, CLIPS = "table.json", "rows.arrow", "clips.arrow"
_SCHEMA = pa.schema(
    [("ids", pa.list_(pa.int32())), ("labelled", pa.list_(pa.bool_())), ("length", pa.int32()), ("source", pa.string())]
)
_ROWS_PER_BATCH = 4096


class TokenSequence(NamedTuple):
    """One conversation spelled out: `input_ids` and `labels` `(L,)` int64, and the data set it came from."""

    input_ids: NDArray[np.int64]
    labels: NDArray[np.int64]
    source: str


class ClipPart(NamedTuple):
    """The first `frames` frames of a clip of the token store: all of them, unless it was cropped to fit."""

    key: str
    frames: int


class CompactSequence(NamedTuple):
    """One conversation: `ids` where a clip is −1 − its number, `labelled` for each of them, `length` spelled out."""

    ids: list[int]
    labelled: list[bool]
    length: int
    labels: int
    """Labelled tokens, spelled out."""
    source: str


def spell_out(
    ids: NDArray[np.integer[Any]],
    labelled: NDArray[np.bool_],
    clip_ids: Callable[[int], NDArray[np.integer[Any]]],
    source: str = "",
) -> TokenSequence:
    """A compact sequence with each clip's ids in its place; `clip_ids` gives those of a clip's number."""
    own: NDArray[np.int64] = np.asarray(ids, dtype=np.int64)
    places = np.flatnonzero(own < 0)
    parts: list[NDArray[np.int64]] = []
    flags: list[NDArray[np.bool_]] = []
    start = 0
    for place in places.tolist():
        clip = np.asarray(clip_ids(-1 - int(own[place])), dtype=np.int64)
        parts += [own[start:place], clip]
        flags += [labelled[start:place], np.full(len(clip), labelled[place])]
        start = place + 1
    input_ids = np.concatenate([*parts, own[start:]])
    return TokenSequence(input_ids, np.where(np.concatenate([*flags, labelled[start:]]), input_ids, IGNORED), source)


class SequenceTable:
    """A folder of compact sequences, read-only. `lengths` `(N,)`: tokens of each, spelled out; `clips`: what their clips are."""

    def __init__(self, folder: Path) -> None:
        """Open a finished table; `write_table` makes one."""
        self.folder = folder
        self.description: dict[str, Any] = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
        # not combined: that would copy the whole table out of the memory map
        self._blocks = pa.ipc.open_stream(pa.memory_map(str(folder / ROWS))).read_all().to_batches()
        clips = pa.ipc.open_stream(pa.memory_map(str(folder / CLIPS))).read_all()
        self.clips = [
            ClipPart(*pair) for pair in zip(clips["key"].to_pylist(), clips["frames"].to_pylist(), strict=True)
        ]
        lengths = [block["length"].to_numpy().astype(np.int64) for block in self._blocks]
        self.lengths: NDArray[np.int64] = np.concatenate([*lengths, np.zeros(0, np.int64)])

    def __len__(self) -> int:
        return len(self.lengths)

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self.folder}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["folder"])  # type: ignore[misc]

    def compact(self, number: int) -> tuple[NDArray[np.int32], NDArray[np.bool_], str]:
        """Ids with clips as negative numbers, what is labelled, and the source of a sequence."""
        block, place = divmod(number, _ROWS_PER_BATCH)
        row = {name: self._blocks[block][name][place] for name in ("ids", "labelled", "source")}
        ids = row["ids"].values.to_numpy()
        return ids, row["labelled"].values.to_numpy(zero_copy_only=False), row["source"].as_py()


def write_table(
    rows: Iterable[CompactSequence],
    clips: Sequence[ClipPart],
    folder: Path,
    describe: Callable[[], dict[str, Any]] = dict,
) -> str:
    """Write sequences, whole or not at all; returns a digest of them (SHA-256, 16 hexadecimal digits).

    `clips` may grow while `rows` are taken, and what `describe` gives is kept in `table.json`: both are asked for after the last.
    """
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    waiting = iter(rows)
    with pa.OSFile(str(partial / ROWS), "wb") as file, pa.ipc.new_stream(file, _SCHEMA) as writer:
        while block := list(islice(waiting, _ROWS_PER_BATCH)):
            columns = [[getattr(row, name) for row in block] for name in _SCHEMA.names]
            writer.write_batch(pa.record_batch(columns, schema=_SCHEMA))
    keys, frames = (
        pa.array([clip.key for clip in clips], pa.string()),
        pa.array([clip.frames for clip in clips], pa.int32()),
    )
    table = pa.table({"key": keys, "frames": frames})
    with pa.OSFile(str(partial / CLIPS), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)
    digest = _digest([partial / ROWS, partial / CLIPS])
    (partial / DESCRIPTION).write_text(json.dumps({**describe(), "digest": digest}, indent=2) + "\n", encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
    return digest


def open_if_same(folder: Path, inputs: str) -> SequenceTable | None:
    """The table of `folder` where it was made of the same `inputs` (a digest), else None."""
    try:
        table = SequenceTable(folder)
    except (OSError, ValueError, KeyError):
        return None
    return table if table.description.get("inputs") == inputs else None


def require_rows(table: SequenceTable) -> SequenceTable:
    """The table; raises `DataError` where it holds nothing to train on."""
    if not len(table):
        raise DataError("no sequences to train on; name at least one data set whose audio is in the token store")
    return table


def _digest(paths: Sequence[Path]) -> str:
    hasher = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            hasher.update(hashlib.file_digest(file, "sha256").digest())
    return hasher.hexdigest()[:16]
