"""The token store: the codes of a corpus, encoded once and found by the audio's content.

Built by `recipes/tokenize_corpus.py` (`alm/data/tokens_build.py`); the form on disk is in `alm/data/tokens_format.py`.
"""

import bisect
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from alm.data.example import Content, DataError
from alm.data.tokens_format import (
    FAILURES,
    FORMAT,
    KEY_DIGITS,
    PARTS,
    SHARDS,
    STORE,
    VERSION,
    Failure,
    Shard,
    Source,
    StoreContract,
    content_digest,
    content_key,
    read_failures,
    read_shard,
    read_sources,
    relative_path,
)
from alm.vocabulary import ContractError
from codec.base import Codes


class Statistics(NamedTuple):
    """What a store holds. `used` (share of codes that occur) and `perplexity` (at most the codebook's size): one per codebook."""

    clips: int
    hours: float
    tokens: int
    used: tuple[float, ...]
    perplexity: tuple[float, ...]


class TokenStore:
    """Codes `(K, T)` of audio files, by path or by content key. Read-only, memory-mapped; pickles as its path."""

    def __init__(self, folder: Path, description: dict[str, Any], shards: list[Shard]) -> None:
        """Use `TokenStore.open`."""
        self.folder, self.description, self.shards = folder, description, shards
        self.store_contract = StoreContract(**description["contract"])
        self._rows: dict[str, int] = {}
        self._starts: list[int] = []
        self._fresh: list[NDArray[np.bool_]] = []  # an unfinished build may hold a clip twice: same content, same codes
        start = 0
        for shard in shards:
            self.store_contract.require(shard.contract, str(shard.path))
            self._starts.append(start)
            rows = enumerate(shard.keys, start)
            self._fresh.append(np.array([self._rows.setdefault(key, row) == row for row, key in rows], np.bool_))
            start += len(shard.keys)
        self._sources: dict[str, Source] | None = None
        self._hashed: dict[tuple[str, int, int], str] = {}

    @classmethod
    def open(cls, path: str | Path, codec_fingerprint: str | None = None) -> "TokenStore":
        """Open a store, also one whose build is not finished yet.

        Raises `DataError` where `path` is not a store or is damaged, and `ContractError`, with both fingerprints, where the
        store was not made with the codec of `codec_fingerprint` (None: do not check).
        """
        folder = Path(path)
        description = read_description(folder)
        found = description["contract"]["codec_fingerprint"]
        if codec_fingerprint is not None and codec_fingerprint != found:
            raise ContractError(
                f"token store {folder} was made with codec {found}, but codec {codec_fingerprint} is in use. Codes of one codec mean "
                "nothing to a model of another: give the store made with this codec, or run recipes/tokenize_corpus.py with it."
            )
        listed = [folder / SHARDS / name for name in description["shards"]]
        missing = [str(path) for path in listed if not path.is_file()]
        if missing:
            raise DataError(
                f"token store {folder} lacks {', '.join(missing)}: copy it again, or tokenise again into the same folder"
            )
        return cls(folder, description, [read_shard(path) for path in [*listed, *unmerged_parts(folder)]])

    def __reduce__(self) -> tuple[Any, ...]:
        return TokenStore.open, (self.folder, self.store_contract.codec_fingerprint)

    @property
    def contract(self) -> dict[str, Any]:
        """codec_fingerprint, num_codebooks, codebook_size, sampling_rate, frame_rate, dtype, codec (its name or path)."""
        return {**asdict(self.store_contract), "codec": self.description["codec"]}

    @property
    def seconds(self) -> float:
        """Seconds of audio, each content counted once."""
        return float(sum(s.seconds[fresh].sum() for s, fresh in zip(self.shards, self._fresh, strict=True)))

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, key: object) -> bool:
        return key in self._rows

    def keys(self) -> Iterator[str]:
        """Content keys, in the store's order."""
        return iter(self._rows)

    def codes(self, audio_path: str | Path) -> Codes:
        """Codes `(K, T)` int64 of an audio file. Raises `DataError` where the store does not have it."""
        return self.codes_by_key(self.key_of(audio_path))

    def codes_by_key(self, key: str) -> Codes:
        """Codes `(K, T)` int64 of a content key (`content_key` of a file or its bytes). Raises `DataError` if unknown."""
        shard, row = self._locate(key)
        flat = self.shards[shard].clip(row).codes
        return flat.reshape(-1, self.store_contract.num_codebooks).T.astype(np.int64)

    def key_of_item(self, item: Content) -> str:
        """Content key of an audio item of messages, by its `key`, `bytes` or file. Raises `DataError` where the store lacks it."""
        if item.get("key") is None and item.get("bytes") is None:
            return self.key_of(item["path"])
        key: str = item["key"] if item.get("key") is not None else content_key(item["bytes"])
        if key not in self._rows:
            raise DataError(self._unknown(key, str(item.get("path") or "a clip")))
        return key

    def frames_by_key(self, key: str) -> int:
        """`T` of a content key, without reading its codes."""
        shard, row = self._locate(key)
        return int(self.shards[shard].num_frames[row])

    def num_frames(self, audio_path: str | Path) -> int:
        """`T` of a file, without reading its codes."""
        shard, row = self._locate(self.key_of(audio_path))
        return int(self.shards[shard].num_frames[row])

    def key_of(self, audio_path: str | Path) -> str:
        """Content key of an audio file that is in the store.

        A file that the store knows by path, with the same size and time, is not read; any other is hashed, so a corpus that was
        moved is still found. A file that is gone is known by its path. Raises `DataError` where the content is not in the store.
        """
        path = Path(audio_path)
        known = self._source_of(path)
        try:
            stat = path.stat()
        except OSError:
            if known is None:
                raise DataError(
                    f"{path}: no such file, and token store {self.folder} does not know this path"
                ) from None
            return known.key
        if known is not None and (known.size, known.mtime_ns) == (stat.st_size, stat.st_mtime_ns):
            return known.key
        seen = (str(path), stat.st_size, stat.st_mtime_ns)
        if seen not in self._hashed:
            self._hashed[seen] = content_key(path)
        key = self._hashed[seen]
        if key not in self._rows:
            raise DataError(self._unknown(key, str(path)))
        return key

    def failures(self) -> list[Failure]:
        """Files that could not be encoded, each with its reason; `path` is relative to the store's folder."""
        return read_failures(self.folder / FAILURES)

    def statistics(self) -> Statistics:
        """Totals, codebook use and perplexity; reads every code once."""
        K, size = self.store_contract.num_codebooks, self.store_contract.codebook_size
        counts = np.zeros((K, size), np.int64)
        for shard, fresh in zip(self.shards, self._fresh, strict=True):
            flat = shard.values[np.repeat(fresh, np.diff(shard.offsets))]
            counts += np.stack([np.bincount(flat[k::K], minlength=size) for k in range(K)])
        p = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        entropy = -(p * np.log(np.where(p > 0, p, 1))).sum(axis=1)
        used, perplexity = (counts > 0).mean(axis=1).tolist(), np.exp(entropy).tolist()
        return Statistics(len(self), self.seconds / 3600, int(counts.sum()), tuple(used), tuple(perplexity))

    def verify(self) -> list[str]:
        """Read every shard again; returns what is wrong, one line each (empty: all is well).

        Checks each file's bytes against the hash in its name, shapes, code ranges, duplicates, totals, and that every source's
        key is there.
        """
        problems = [problem for shard in self.shards for problem in _shard_problems(shard, self.store_contract)]
        stored = sum(len(shard.keys) for shard in self.shards)
        if stored != len(self):
            problems.append(f"{stored - len(self)} clips are stored twice (an unfinished build: run it again to merge)")
        if any(shard.path.parent.name == PARTS for shard in self.shards):
            problems.append("the build is not finished: run recipes/tokenize_corpus.py again with the same arguments")
        elif self.description["clips"] != len(self):
            problems.append(f"{STORE} counts {self.description['clips']} clips, the shards hold {len(self)}")
        lost = [source.path for source in self.sources().values() if source.key not in self._rows]
        problems += [f"source {path}: its content is not in any shard" for path in lost]
        return problems

    def sources(self) -> dict[str, Source]:
        """Known files by path (relative to the store's folder)."""
        if self._sources is None:
            name = self.description["sources"]
            rows = read_sources(self.folder / name) if name else []
            self._sources = {row.path: row for row in rows}
        return self._sources

    def _source_of(self, path: Path) -> Source | None:
        source = self.sources().get(relative_path(path, self.folder))
        return source if source is not None and source.key in self._rows else None

    def _locate(self, key: str) -> tuple[int, int]:
        row = self._rows.get(key)
        if row is None:
            raise DataError(self._unknown(key, f"content {key}"))
        shard = bisect.bisect_right(self._starts, row) - 1
        return shard, row - self._starts[shard]

    def _unknown(self, key: str, what: str) -> str:
        reasons = [failure.reason for failure in self.failures() if failure.key == key]
        why = f"it could not be encoded: {reasons[0]}" if reasons else "run recipes/tokenize_corpus.py over its folder"
        return f"{what} is not in token store {self.folder} ({len(self)} clips); {why}"


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


def _shard_problems(shard: Shard, contract: StoreContract) -> list[str]:
    problems: list[str] = []
    if not shard.path.stem.endswith(content_digest(shard.path)):
        problems.append(f"{shard.path}: its bytes do not fit the hash in its name: damaged")
    lengths: NDArray[np.integer[Any]] = np.diff(shard.offsets)
    if (lengths != shard.num_frames * contract.num_codebooks).any():
        problems.append(f"{shard.path}: clips whose codes are not num_frames × {contract.num_codebooks}")
    if shard.values.size and shard.values.max() >= contract.codebook_size:
        problems.append(f"{shard.path}: code {shard.values.max()} outside [0, {contract.codebook_size})")
    if any(len(key) != KEY_DIGITS for key in shard.keys):
        problems.append(f"{shard.path}: keys that are not {KEY_DIGITS} hexadecimal digits")
    return problems
