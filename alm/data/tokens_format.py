"""The token store on disk: names, contract, records, keys.

    store.json              commit point: contract, totals, and the names of the files that count
    shards/00000-….arrow    clips in order of key: key, codes, num_frames, seconds (Arrow IPC, read through memory maps)
    sources-….arrow         which audio had which content, in order of path: path, size, mtime_ns, key
    failures.jsonl          files that could not be encoded, each with its reason
    parts/, work/           only while a build is unfinished: encoded clips and hashes, not yet merged

Names carry a hash of the content, so a file that exists is whole and a second writer writes the same bytes. Tables are sorted, so that
they are searched where they lie.
"""

import hashlib
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from alm.vocabulary import ContractError
from codec.audio import AudioError, read_bytes
from codec.base import Codec, Codes

STORE, FAILURES, SHARDS, PARTS, WORK = "store.json", "failures.jsonl", "shards", "parts", "work"
FORMAT, VERSION = "audio token store", 1
KEY_DIGITS = 32


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
    """Audio and the content it had: its name (`item_name`), bytes, key, and the nanoseconds of the file that it is or is in."""

    path: str
    size: int
    mtime_ns: int
    key: str


class Failure(NamedTuple):
    """Audio that could not be encoded; `key` is empty where not even its bytes could be read."""

    path: str
    key: str
    reason: str


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


def item_name(path: str | Path, store: Path, label: str = "") -> str:
    """What the tables call audio: its path relative to the store, so that store and corpus may move together; addresses as they are.

    `label` follows (`alm.data.audio_groups`). Bytes of a file's name that are not UTF-8 are written as `\\xe9`: the tables are text.
    """
    name = str(path)
    if "://" not in name:
        name = os.path.relpath(name, store)
    return (name + label).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
