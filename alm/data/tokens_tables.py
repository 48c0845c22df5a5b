"""The tables of a token store as Arrow files, read through memory maps and searched by bisection where they lie."""

import bisect
import hashlib
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from alm.data.example import DataError
from alm.data.tokens_files import write_atomic
from alm.data.tokens_format import KEY_DIGITS, Clip, Source, StoreContract

_KEY = np.dtype(f"S{KEY_DIGITS}")


class Shard(NamedTuple):
    """A shard, memory-mapped: clip i's codes are `values[offsets[i]:offsets[i + 1]]`, its key `keys[i]` (ASCII, ascending)."""

    path: Path
    contract: StoreContract
    keys: NDArray[np.bytes_]
    offsets: NDArray[np.integer[Any]]
    values: NDArray[np.unsignedinteger[Any]]
    num_frames: NDArray[np.int32]
    seconds: NDArray[np.float64]

    def clip(self, row: int) -> Clip:
        """Clip of a row; its codes are a view of the file."""
        codes = self.values[self.offsets[row] : self.offsets[row + 1]]
        return Clip(self.keys[row].decode(), codes, int(self.num_frames[row]), float(self.seconds[row]))


class Place(NamedTuple):
    """Where a clip is: the shard's number and its row there."""

    shard: int
    row: int


class ClipIndex:
    """Where each content is, and which rows count: while a build is unfinished a clip may be there twice (with the same codes)."""

    def __init__(self, shards: Sequence[Shard]) -> None:
        self.shards = shards
        self._first = np.array([shard.keys[0] for shard in shards], _KEY)
        self._last = np.array([shard.keys[-1] for shard in shards], _KEY)
        order = np.argsort(self._first)
        self._fresh: list[NDArray[np.bool_]] | None = None
        if len(shards) > 1 and (self._first[order][1:] <= self._last[order][:-1]).any():
            self._fresh = self._first_rows()

    def __len__(self) -> int:
        return int(sum(self.fresh(number).sum() for number in range(len(self.shards))))

    def find(self, key: str) -> Place | None:
        """Place of a key, or None: two comparisons per shard, and a bisection in the one or few whose keys span it."""
        wanted = np.bytes_(key.encode())
        for number in np.flatnonzero((self._first <= wanted) & (wanted <= self._last)).tolist():
            keys = self.shards[number].keys
            row = int(np.searchsorted(keys, wanted))
            if keys[row] == wanted:
                return Place(number, row)
        return None

    def fresh(self, number: int) -> NDArray[np.bool_]:
        """For each row of a shard whether it is the first with its content."""
        return np.ones(len(self.shards[number].keys), np.bool_) if self._fresh is None else self._fresh[number]

    def all_keys(self) -> NDArray[np.bytes_]:
        """All keys, shard after shard."""
        return np.concatenate([shard.keys for shard in self.shards]) if self.shards else np.empty(0, _KEY)

    def in_order(self) -> Iterator[Place]:
        """Every content once, in order of key."""
        fresh = np.concatenate([*map(self.fresh, range(len(self.shards))), np.empty(0, np.bool_)])
        starts = np.cumsum([0, *(len(shard.keys) for shard in self.shards)])
        order = np.argsort(self.all_keys(), kind="stable")
        for row in order[fresh[order]]:
            number = int(np.searchsorted(starts, row, side="right")) - 1
            yield Place(number, int(row - starts[number]))

    def _first_rows(self) -> list[NDArray[np.bool_]]:
        keys = self.all_keys()
        fresh = np.zeros(len(keys), np.bool_)
        fresh[np.unique(keys, return_index=True)[1]] = True
        return np.split(fresh, np.cumsum([len(shard.keys) for shard in self.shards])[:-1])


class SourceTable:
    """Sources in order of path, memory-mapped."""

    def __init__(self, table: Any = None) -> None:
        self._columns = [_only_chunk(table.column(name)) for name in Source._fields] if table is not None else []

    def __len__(self) -> int:
        return len(self._columns[0]) if self._columns else 0

    def __iter__(self) -> Iterator[Source]:
        for start in range(0, len(self), 10_000):
            yield from map(Source, *(column[start : start + 10_000].to_pylist() for column in self._columns))

    def find(self, path: str) -> Source | None:
        """The source of a path, or None."""
        row = bisect.bisect_left(range(len(self)), path, key=lambda i: self._columns[0][i].as_py())
        if row == len(self) or self._columns[0][row].as_py() != path:
            return None
        return Source(*(column[row].as_py() for column in self._columns))

    def keys(self) -> NDArray[np.bytes_]:
        """The key of each."""
        return _keys(self._columns[-1]) if len(self) else np.empty(0, _KEY)


def write_shard(folder: Path, clips: Iterable[Clip], contract: StoreContract, prefix: str = "") -> str:
    """Write clips (at least one) in order of key as `folder/<prefix><content hash>.arrow`; returns the name."""
    clips = sorted(clips, key=lambda clip: clip.key)
    offsets = np.concatenate([[0], np.cumsum([len(clip.codes) for clip in clips])])
    values = pa.array(np.concatenate([clip.codes for clip in clips]).astype(contract.dtype))
    columns = {
        "key": pa.array([clip.key for clip in clips], pa.string()),
        "codes": pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), values),
        "num_frames": pa.array([clip.num_frames for clip in clips], pa.int32()),
        "seconds": pa.array([clip.seconds for clip in clips], pa.float64()),
    }
    return _write_table(folder, pa.table(columns), prefix, {"contract": json.dumps(asdict(contract), sort_keys=True)})


def read_shard(path: Path) -> Shard:
    """Open a shard as a memory map. Raises `DataError` where it is damaged."""
    table = _read_table(path)
    try:
        contract = StoreContract(**json.loads((table.schema.metadata or {})[b"contract"]))
        codes = _only_chunk(table.column("codes"))
        numbers = [_only_chunk(table.column(name)).to_numpy() for name in ("num_frames", "seconds")]
        keys = _keys(_only_chunk(table.column("key")))
        return Shard(path, contract, keys, codes.offsets.to_numpy(), codes.values.to_numpy(), *numbers)
    except (KeyError, TypeError, ValueError, pa.ArrowException) as error:
        raise DataError(
            f"{path}: not a shard of a token store ({error}); delete it and build the store again"
        ) from error


def write_sources(folder: Path, sources: Iterable[Source], prefix: str = "sources-") -> str:
    """Write a sources table, in order of path, as `folder/<prefix><content hash>.arrow`; returns the name."""
    rows = sorted(sources)
    path, size, mtime, key = zip(*rows, strict=True) if rows else ((), (), (), ())
    columns = {
        "path": pa.array(path, pa.string()),
        "size": pa.array(size, pa.int64()),
        "mtime_ns": pa.array(mtime, pa.int64()),
        "key": pa.array(key, pa.string()),
    }
    return _write_table(folder, pa.table(columns), prefix, {})


def read_sources(path: Path) -> SourceTable:
    """Open a sources table. Raises `DataError` where it is damaged."""
    return SourceTable(_read_table(path))


def content_digest(path: Path) -> str:
    """The hash that a table's name ends with, from its bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def _keys(column: Any) -> NDArray[np.bytes_]:
    """Keys as an array over the file's own bytes: strings of one length lie one after the other."""
    _, offsets, data = column.buffers()
    ends = np.frombuffer(offsets, np.int32)[[0, len(column)]].tolist()
    if column.offset or ends != [0, len(column) * KEY_DIGITS]:
        raise ValueError(f"keys that are not {KEY_DIGITS} hexadecimal digits")
    return np.frombuffer(data, _KEY, len(column))


def _only_chunk(column: Any) -> Any:
    return column.chunk(0) if column.num_chunks else pa.array([], column.type)


def _write_table(folder: Path, table: Any, prefix: str, metadata: dict[str, str]) -> str:
    sink = io.BytesIO()
    table = table.replace_schema_metadata(metadata).combine_chunks()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    data = sink.getvalue()
    name = f"{prefix}{hashlib.sha256(data).hexdigest()[:16]}.arrow"
    if not (folder / name).exists():
        write_atomic(folder / name, data)
    return name


def _read_table(path: Path) -> Any:
    try:
        return pa.ipc.open_file(pa.memory_map(str(path))).read_all()
    except (OSError, pa.ArrowException) as error:
        raise DataError(
            f"{path}: damaged or not an Arrow file ({error}); delete it and build the store again"
        ) from error
