"""The token store: the codes of a corpus, encoded once and found by the audio's content.

Built by `recipes/tokenize_corpus.py` (`alm/data/tokens_build.py`); the form on disk is in `alm/data/tokens_format.py`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from alm.data.example import Content, DataError
from alm.data.tokens_check import Statistics, shard_problems, statistics
from alm.data.tokens_files import read_description, read_failures, unmerged_parts
from alm.data.tokens_format import (
    FAILURES,
    PARTS,
    SHARDS,
    STORE,
    Failure,
    Source,
    StoreContract,
    content_key,
    item_name,
)
from alm.data.tokens_hub import local_folder
from alm.data.tokens_tables import ClipIndex, Place, Shard, SourceTable, read_shard, read_sources
from alm.vocabulary import ContractError
from codec.base import Codes

Audio = str | Path | bytes | Content
_REMEMBERED = 1 << 16  # paths


class TokenStore:
    """Codes `(K, T)` of audio files, by path or by content key. Read-only, memory-mapped; pickles as its path."""

    def __init__(self, folder: Path, description: dict[str, Any], shards: list[Shard]) -> None:
        """Use `TokenStore.open`."""
        self.folder, self.description = folder, description
        self.store_contract = StoreContract(**description["contract"])
        for shard in shards:
            self.store_contract.require(shard.contract, str(shard.path))
        self.index = ClipIndex(shards)
        self._sources: SourceTable | None = None
        # many questions about one clip ask for it again and again; what a relative path means depends on the folder
        self._source_of = lru_cache(_REMEMBERED)(self._find_source)
        self._hashed: dict[tuple[str, int, int], str] = {}

    @classmethod
    def open(cls, path: str | Path, codec_fingerprint: str | None = None) -> "TokenStore":
        """Open a store, also one whose build is not finished yet: a folder, or OWNER/NAME of the Hub where there is no such folder.

        Only the shards' footers are read. Raises `DataError` where `path` is not a store or is damaged, and `ContractError`, with
        both fingerprints, where the store was not made with the codec of `codec_fingerprint` (None: do not check).
        """
        folder = local_folder(path)
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
        # not the class method: `datasets` hashes what it is given, and takes a method apart, with all the code that it reaches, for seconds
        return _opened, (self.folder, self.store_contract.codec_fingerprint)

    @property
    def contract(self) -> dict[str, Any]:
        """codec_fingerprint, num_codebooks, codebook_size, sampling_rate, frame_rate, dtype, codec (its name or path)."""
        return {**asdict(self.store_contract), "codec": self.description["codec"]}

    @property
    def shards(self) -> Sequence[Shard]:
        """The store's tables of clips."""
        return self.index.shards

    @property
    def seconds(self) -> float:
        """Seconds of audio, each content counted once."""
        return float(sum(shard.seconds[self.index.fresh(i)].sum() for i, shard in enumerate(self.shards)))

    def __len__(self) -> int:
        return len(self.index)

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and self.index.find(key) is not None

    def keys(self) -> Iterator[str]:
        """Content keys, in the store's order."""
        for number, shard in enumerate(self.shards):
            yield from (key.decode() for key in shard.keys[self.index.fresh(number)])

    def codes_of(self, audio: Audio) -> Codes:
        """Codes `(K, T)` int64 of a path, of an encoded file's bytes, or of an audio item of a message (`key_of_item`).

        Raises `DataError` where the store does not have it.
        """
        if isinstance(audio, str | Path):
            return self.codes(audio)
        return self.codes_by_key(self.key_of_item({"bytes": audio} if isinstance(audio, bytes) else audio))

    def codes(self, audio_path: str | Path) -> Codes:
        """Codes `(K, T)` int64 of an audio file. Raises `DataError` where the store does not have it."""
        return self.codes_by_key(self.key_of(audio_path))

    def codes_by_key(self, key: str) -> Codes:
        """Codes `(K, T)` int64 of a content key (`content_key` of a file or its bytes). Raises `DataError` if unknown."""
        shard, row = self._place(key)
        flat = self.shards[shard].clip(row).codes
        return flat.reshape(-1, self.store_contract.num_codebooks).T.astype(np.int64)

    def key_of_item(self, item: Content) -> str:
        """Content key of an audio item of messages, by its `key`, `bytes` or `path`, the first of them that it has.

        Raises `DataError` where the store lacks it.
        """
        name = next((name for name in ("key", "bytes", "path") if item.get(name) is not None), None)
        if name is None:
            raise DataError(f"an audio item with {sorted(item)}: a token store finds audio by its key, bytes or path")
        if name == "path":
            return self.key_of(item["path"])
        key: str = item["key"] if name == "key" else content_key(item["bytes"])
        if key not in self:
            raise DataError(self._unknown(key, str(item.get("path") or f"content {key}")))
        return key

    def frames_by_key(self, key: str) -> int:
        """`T` of a content key, without reading its codes."""
        shard, row = self._place(key)
        return int(self.shards[shard].num_frames[row])

    def num_frames(self, audio_path: str | Path) -> int:
        """`T` of a file, without reading its codes."""
        return self.frames_by_key(self.key_of(audio_path))

    def key_of(self, audio_path: str | Path) -> str:
        """Content key of an audio file that is in the store.

        A file that the store knows by path, with the same size and time, is not read; any other is hashed, so a corpus that was
        moved is still found. A file that is gone is known by its path. Raises `DataError` where the content is not in the store.
        """
        path = Path(audio_path)
        known = self._source_of(str(audio_path), str(Path.cwd()))
        try:
            stat = path.stat()
        except OSError:
            if known is None:
                raise DataError(
                    f"{audio_path}: no such file, and token store {self.folder} does not know this path"
                ) from None
            return known.key
        if known is not None and (known.size, known.mtime_ns) == (stat.st_size, stat.st_mtime_ns):
            return known.key
        seen = (str(path), stat.st_size, stat.st_mtime_ns)
        if seen not in self._hashed:
            self._hashed[seen] = content_key(path)
        key = self._hashed[seen]
        if key not in self:
            raise DataError(self._unknown(key, str(path)))
        return key

    def failures(self) -> list[Failure]:
        """Files that could not be encoded, each with its reason; `path` is relative to the store's folder."""
        return read_failures(self.folder / FAILURES)

    def statistics(self) -> Statistics:
        """Totals, codebook use and perplexity; reads every code once."""
        return statistics(self.index, self.store_contract)

    def verify(self) -> list[str]:
        """Read every shard again; returns what is wrong, one line each (empty: all is well).

        Checks each file's bytes against the hash in its name, shapes, code ranges, order, duplicates, totals, and that every source's
        key is there.
        """
        problems = [problem for shard in self.shards for problem in shard_problems(shard, self.store_contract)]
        stored = sum(len(shard.keys) for shard in self.shards)
        if stored != len(self):
            problems.append(f"{stored - len(self)} clips are stored twice (an unfinished build: run it again to merge)")
        if any(shard.path.parent.name == PARTS for shard in self.shards):
            problems.append("the build is not finished: run recipes/tokenize_corpus.py again with the same arguments")
        elif self.description["clips"] != len(self):
            problems.append(f"{STORE} counts {self.description['clips']} clips, the shards hold {len(self)}")
        known = np.isin(self.sources().keys(), self.index.all_keys())
        lost = [source.path for source, found in zip(self.sources(), known, strict=True) if not found]
        return problems + [f"source {path}: its content is not in any shard" for path in lost]

    def sources(self) -> SourceTable:
        """Known audio in order of its name (a path is relative to the store's folder)."""
        if self._sources is None:
            name = self.description["sources"]
            self._sources = read_sources(self.folder / name) if name else SourceTable()
        return self._sources

    def _find_source(self, path: str, _folder: str) -> Source | None:
        # by the path from the store to the file, or, for rows and archives of others, by the name as it stands
        for name in (item_name(path, self.folder), path):
            source = self.sources().find(name)
            if source is not None and source.key in self:
                return source
        return None

    def _place(self, key: str) -> Place:
        place = self.index.find(key)
        if place is None:
            raise DataError(self._unknown(key, f"content {key}"))
        return place

    def _unknown(self, key: str, what: str) -> str:
        reasons = [failure.reason for failure in self.failures() if failure.key == key]
        why = f"it could not be encoded: {reasons[0]}" if reasons else "run recipes/tokenize_corpus.py over its folder"
        return f"{what} is not in token store {self.folder} ({len(self)} clips); {why}"


def _opened(folder: Path, codec_fingerprint: str) -> TokenStore:
    return TokenStore.open(folder, codec_fingerprint)
