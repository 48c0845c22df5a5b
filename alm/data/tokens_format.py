"""The token store on disk: names, contract, tables, and writes that are whole or absent.

    store.json              commit point: contract, totals, and the names of the files that count
    shards/00000-….arrow    clips in order of key: key, codes, num_frames, seconds (Arrow IPC, read through memory maps)
    sources-….arrow         which audio file had which content: path, size, mtime_ns, key
    failures.jsonl          files that could not be encoded, each with its reason
    parts/, work/           only while a build is unfinished: encoded clips and hashes, not yet merged

Names carry a hash of the content, so a file that exists is whole and a second writer writes the same bytes.
"""

import hashlib
import io
import itertools
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from alm.data.example import DataError
from alm.vocabulary import ContractError
from codec.audio import AudioError, read_bytes
from codec.base import Codec, Codes

STORE, FAILURES, SHARDS, PARTS, WORK = "store.json", "failures.jsonl", "shards", "parts", "work"
FORMAT, VERSION = "audio token store", 1
KEY_DIGITS = 32
_TEMPORARY = ".tmp-"
_counter = itertools.count()


@dataclass(frozen=True)
class StoreContract:
    """What a store's codes mean. Stored in `store.json` and in the metadata of every shard."""

    codec_fingerprint: str
    num_codebooks: int
    codebook_size: int
    sampling_rate: int
    frame_rate: float
    dtype: str

    @classmethod
    def of(cls, codec: Codec) -> "StoreContract":
        """The contract of what `codec` encodes."""
        return cls(
            codec_fingerprint=codec.fingerprint,
            num_codebooks=codec.num_codebooks,
            codebook_size=codec.codebook_size,
            sampling_rate=codec.sampling_rate,
            frame_rate=float(codec.frame_rate),
            dtype="uint16" if codec.codebook_size <= 1 << 16 else "uint32",
        )

    def require(self, other: "StoreContract", where: str) -> None:
        """Raise `ContractError` with both sides unless `other`, the contract found at `where`, says the same."""
        mine, theirs = asdict(self), asdict(other)
        differences = [f"{name} {theirs[name]!r}, here {mine[name]!r}" for name in mine if mine[name] != theirs[name]]
        if differences:
            raise ContractError(
                f"{where} was made with another codec: {'; '.join(differences)}. Codes of one codec mean "
                "nothing to another: use the codec it was made with, or tokenise into another folder."
            )

    def flatten(self, codes: Codes) -> NDArray[np.unsignedinteger[Any]]:
        """Codes `(K, T)` to the stored form `(T × K,)`, frame by frame. Raises `ContractError` on what no such codec gives."""
        codes = np.asarray(codes)
        if codes.ndim != 2 or codes.shape[0] != self.num_codebooks or codes.dtype.kind not in "iu":
            raise ContractError(
                f"integer codes ({self.num_codebooks}, T) expected, the codec gave {codes.dtype} {codes.shape}"
            )
        if codes.size and (codes.min() < 0 or codes.max() >= self.codebook_size):
            raise ContractError(
                f"codes in [0, {self.codebook_size}) expected, the codec gave {codes.min()}…{codes.max()}"
            )
        return codes.T.reshape(-1).astype(self.dtype)


class Clip(NamedTuple):
    """One clip as stored: codes flat `(T × K,)`, frame by frame."""

    key: str
    codes: NDArray[np.unsignedinteger[Any]]
    num_frames: int
    seconds: float


class Source(NamedTuple):
    """An audio file and the content it had: path relative to the store's folder, bytes, nanoseconds, key."""

    path: str
    size: int
    mtime_ns: int
    key: str


class Failure(NamedTuple):
    """A file that could not be encoded; `key` is empty where not even its bytes could be read."""

    path: str
    key: str
    reason: str


class Shard(NamedTuple):
    """A shard, memory-mapped: clip i's codes are `values[offsets[i]:offsets[i + 1]]`."""

    path: Path
    contract: StoreContract
    keys: list[str]
    offsets: NDArray[np.integer[Any]]
    values: NDArray[np.unsignedinteger[Any]]
    num_frames: NDArray[np.int32]
    seconds: NDArray[np.float64]

    def clip(self, row: int) -> Clip:
        """Clip of a row; its codes are a view of the file."""
        codes = self.values[self.offsets[row] : self.offsets[row + 1]]
        return Clip(self.keys[row], codes, int(self.num_frames[row]), float(self.seconds[row]))


def content_key(source: str | Path | bytes) -> str:
    """First 32 hexadecimal digits of the SHA-256 of a file's bytes. Raises `AudioError` where the file cannot be read."""
    if isinstance(source, bytes):
        return hashlib.sha256(source).hexdigest()[:KEY_DIGITS]
    try:
        with Path(source).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:KEY_DIGITS]
    except OSError as error:
        read_bytes(source)  # raises AudioError with the reason
        raise AudioError(f"{source}: cannot be read ({error.strerror})") from error


def relative_path(path: str | Path, store: Path) -> str:
    """A path as the sources table has it: relative to the store, so that store and corpus may move together."""
    return os.path.relpath(path, store)


def write_shard(folder: Path, clips: Sequence[Clip], contract: StoreContract, prefix: str = "") -> str:
    """Write clips (at least one) as `folder/<prefix><content hash>.arrow`; returns the name."""
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
        codes = table.column("codes").chunk(0)
        return Shard(
            path,
            contract,
            table.column("key").to_pylist(),
            codes.offsets.to_numpy(),
            codes.values.to_numpy(),
            table.column("num_frames").to_numpy(),
            table.column("seconds").to_numpy(),
        )
    except (KeyError, TypeError, ValueError, pa.ArrowException) as error:
        raise DataError(
            f"{path}: not a shard of a token store ({error}); delete it and build the store again"
        ) from error


def write_sources(folder: Path, sources: Sequence[Source], prefix: str = "sources-") -> str:
    """Write a sources table as `folder/<prefix><content hash>.arrow`; returns the name."""
    path, size, mtime, key = zip(*sources, strict=True) if sources else ((), (), (), ())
    columns = {
        "path": pa.array(path, pa.string()),
        "size": pa.array(size, pa.int64()),
        "mtime_ns": pa.array(mtime, pa.int64()),
        "key": pa.array(key, pa.string()),
    }
    return _write_table(folder, pa.table(columns), prefix, {})


def read_sources(path: Path) -> list[Source]:
    """Read a sources table back. Raises `DataError` where it is damaged."""
    columns = _read_table(path).to_pydict()
    return [Source(*row) for row in zip(*(columns[name] for name in Source._fields), strict=True)]


def write_atomic(path: Path, data: bytes) -> None:
    """Write a file so that after a kill or a power cut it is there whole, or not at all."""
    temporary = (
        path.parent / f"{_TEMPORARY}{os.getpid()}-{next(_counter)}"
    )  # not *.arrow: nobody may take it for a shard
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


def content_digest(path: Path) -> str:
    """The hash that a shard's name ends with, from its bytes."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


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
