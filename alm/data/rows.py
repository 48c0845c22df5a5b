"""What a trainer reads: packed rows of sequences, several sources mixed in stated shares, each row spelled out when it is asked for.

The row at a position depends on the seed and the position alone, so that a run goes on at any step, on any number of processes, without
going through what it has had: position `p` of step `s` is `s × batch + p`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from alm.data.packing import pack
from alm.data.sequence_table import ClipPart, SequenceTable, TokenSequence, spell_out
from alm.data.tokens import TokenStore
from alm.vocabulary import AudioVocabulary
from codec.mixing import Draws


@dataclass
class Source:
    """Sequences of one data set (under one task), and how much of the mixture they are: by weight (None: by size), or a fixed share."""

    name: str
    table: SequenceTable
    weight: float | None = None
    share: float | None = None


class PackedRows(torch.utils.data.Dataset[dict[str, Any]]):
    """`count` rows of at most `max_length` tokens from `sources`, mixed by their weights; columns as TRL's packed data sets have them.

    A row holds sequences of one source; which ones share it is decided once (`alm.data.packing`). Either each source has a weight or none
    has (then every row comes once a pass); sources with a `share` have that share of all rows, and the others what is left.
    Raises `ValueError` on weights of some, shares that leave nothing, and on empty sources.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        store: TokenStore | None,
        vocabulary: AudioVocabulary,
        max_length: int,
        count: int | None = None,
        seed: int = 0,
    ) -> None:
        self.sources, self.store, self.vocabulary = list(sources), store, vocabulary
        self.rows = [pack(source.table.lengths, max_length, seed) for source in sources]
        sizes = [len(rows) for rows in self.rows]
        self.draws = Draws(sizes, _weights(self.sources, sizes), seed)
        self.count = len(self.draws) if count is None else count
        self._clip_ids = lru_cache(512)(self._read_clip)

    def __len__(self) -> int:
        return self.count

    @property
    def epoch_rows(self) -> int:
        """Rows of one pass: as many as all sources have."""
        return len(self.draws)

    def __getitem__(self, position: int) -> dict[str, Any]:
        if not 0 <= position < self.count:
            raise IndexError(position)
        which, row = self.draws.at(*divmod(position, len(self.draws)))
        spelled = [self.sequence(which, int(number)) for number in self.rows[which][row]]
        return {
            "input_ids": np.concatenate([one.input_ids for one in spelled]),
            "labels": np.concatenate([one.labels for one in spelled]),
            "seq_lengths": [len(one.input_ids) for one in spelled],
        }

    def sequence(self, source: int, number: int) -> TokenSequence:
        """A sequence of a source, spelled out."""
        table = self.sources[source].table
        ids, labelled, name = table.compact(number)
        return spell_out(ids, labelled, lambda clip: self._clip_ids(table.clips[clip]), name)

    def _read_clip(self, clip: ClipPart) -> Any:
        if self.store is None:
            raise ValueError("these sequences hold audio, but there is no token store")
        return self.vocabulary.codes_to_ids(self.store.codes_by_key(clip.key)[:, : clip.frames])

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_clip_ids": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._clip_ids = lru_cache(512)(self._read_clip)


def _weights(sources: Sequence[Source], sizes: Sequence[int]) -> list[float] | None:
    """Weights of all sources; None where each row is to come once."""
    fixed = sum(source.share for source in sources if source.share is not None)
    others = [(source.weight, size) for source, size in zip(sources, sizes, strict=True) if source.share is None]
    given = [weight for weight, _ in others if weight is not None]
    if len(given) not in (0, len(others)):
        raise ValueError("give each source a weight, or none")
    if not 0 <= fixed < 1 or any(source.share == 0 for source in sources):
        raise ValueError(f"shares must be above 0 and leave something to the other sources, got {fixed:g} in all")
    if not given and not fixed:
        return None
    whole = (sum(given) if given else sum(size for _, size in others)) / (1 - fixed)
    by_size = zip(sources, sizes, strict=True)
    return [
        source.share * whole if source.share is not None else float(size) if source.weight is None else source.weight
        for source, size in by_size
    ]


@dataclass
class Shares:
    """What a mixture is made of, for the plan and the manifest: rows and tokens of each source, and its share of the rows."""

    names: list[str] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    shares: list[float] = field(default_factory=list)

    @classmethod
    def of(cls, data: PackedRows) -> "Shares":
        """Of a mixture."""
        return cls(
            [source.name for source in data.sources],
            [len(rows) for rows in data.rows],
            [int(source.table.lengths.sum()) for source in data.sources],
            [count / len(data.draws) for count in data.draws.counts],
        )
