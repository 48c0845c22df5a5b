"""Several lists of clips as one, in stated shares (Table 7's corpora differ in size by two orders of magnitude)."""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import accumulate, chain
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from codec.data import Clip, ClipListError


def mix_clips(
    sources: Sequence[Sequence[Clip]], weights: Sequence[float] | None = None, seed: int = 0
) -> Sequence[Clip]:
    """One list of several: a mixture in the stated shares, or, without weights, each clip once an epoch.

    Data sets that are read row by row are mixed in the shares of their sizes, which comes to the same. Raises `ClipListError` as
    `MixedClips` does.
    """
    if weights:
        return MixedClips(sources, weights, seed)
    filled = [source for source in sources if len(source)]
    if all(isinstance(source, list) for source in filled):
        return list(chain.from_iterable(filled))
    if len(filled) == 1 and not hasattr(filled[0], "blocks"):
        return filled[0]
    return MixedClips(filled, None, seed)


class Tail(Sequence[Clip]):
    """The clips of `source` from the `start`-th on, without reading any."""

    def __init__(self, source: Sequence[Clip], start: int) -> None:
        self.source, self.start = source, min(start, len(source))
        if (blocks := getattr(source, "blocks", None)) is not None:
            ends = np.maximum(np.cumsum(blocks) - self.start, 0)
            self.blocks = tuple(int(size) for size in np.diff(ends, prepend=0) if size)

    def __len__(self) -> int:
        return len(self.source) - self.start

    def __getitem__(self, index: int | slice) -> Any:
        """One clip, or a list of them for a slice."""
        if isinstance(index, slice):
            return [self[i] for i in range(len(self))[index]]
        return self.source[self.start + range(len(self))[index]]

    @property
    def captions(self) -> list[str]:
        """Captions without reading audio where the source keeps them apart."""
        return list(captions_of(self.source))[self.start :]


def split_off(source: Sequence[Clip], count: int) -> tuple[list[Clip], Sequence[Clip]]:
    """The first `count` clips, read, and the rest, not read unless it is a list."""
    if isinstance(source, list):
        return source[:count], source[count:]
    return list(source[:count]), Tail(source, count) if count else source


def captions_of(clips: Sequence[Clip]) -> Iterator[str]:
    """Captions of `clips` without reading audio where the list keeps them apart."""
    apart = getattr(clips, "captions", None)
    return (clip.caption for clip in clips) if apart is None else iter(apart)


class MixedClips(Sequence[Clip]):
    """`sources` mixed with `weights`: an epoch has as many clips as all sources together, shared out by weight.

    Each source is gone through in a random order of its own, over and over, going on in the next epoch where the last one ended: no clip
    comes again before all others of its source have come. What stands at an index depends on (seed, epoch, index) alone, in constant
    time, so a resumed run needs no replay. Sources of `blocks` that belong together (`codec.streaming`) are gone through a few blocks at
    a time; then `in_order` says that the epoch is to be taken as it stands, since another shuffling on top would read each block
    many times. Without weights each source has the share of its size. Raises `ClipListError` on an
    empty source or weights that are not one positive number for each.
    """

    def __init__(
        self, sources: Sequence[Sequence[Clip]], weights: Sequence[float] | None = None, seed: int = 0
    ) -> None:
        sizes = [len(source) for source in sources]
        try:
            self.draws = Draws(sizes, weights, seed, [getattr(source, "blocks", None) for source in sources])
        except ValueError as error:
            raise ClipListError(str(error)) from error
        self.sources, self.epoch = list(sources), 0
        self.in_order = any(blocks is not None for blocks in self.draws.blocks_of)

    def set_epoch(self, epoch: int) -> None:
        """Called with the data set's epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.draws)

    def __getitem__(self, index: int | slice) -> Clip | list[Clip]:  # type: ignore[override]
        """The clip at `index` of this epoch, or a list of them for a slice."""
        if isinstance(index, slice):
            return [self._clip(i) for i in range(len(self))[index]]
        return self._clip(range(len(self))[index])

    @property
    def captions(self) -> Iterator[str]:
        """The captions of all sources, each once."""
        return chain.from_iterable(map(captions_of, self.sources))

    def _clip(self, index: int) -> Clip:
        draw = self.draws.at(self.epoch, index, shuffled=self.in_order)
        return self.sources[draw.source][draw.item]


class Draw(NamedTuple):
    """One item of a mixture: which source, and which item of it."""

    source: int
    item: int


class Draws:
    """Which item of which source stands where in a mixture, from (seed, epoch, index) alone and in constant time.

    An epoch has as many places as all sources have items, shared out by `weights` (None: by size, so that each item comes once). Each
    source is gone through in random orders of its own, going on where the epoch before ended. Raises `ValueError` on an empty source
    or weights that are not one positive number for each.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        weights: Sequence[float] | None = None,
        seed: int = 0,
        blocks_of: Sequence[tuple[int, ...] | None] | None = None,
    ) -> None:
        if not sizes or not all(sizes):
            raise ValueError(f"each source needs items to be mixed, got sources of {list(sizes)}")
        if weights is not None and not (len(weights) == len(sizes) and all(0 < one < float("inf") for one in weights)):
            raise ValueError(f"one positive weight for each of {len(sizes)} sources is needed, got {list(weights)}")
        self.sizes, self.seed = list(sizes), seed
        self.blocks_of = list(blocks_of or [None] * len(sizes))
        self.counts = list(sizes) if weights is None else _apportion(sum(sizes), weights)
        self.ends = list(accumulate(self.counts))

    def __len__(self) -> int:
        return self.ends[-1]

    def at(self, epoch: int, index: int, shuffled: bool = True) -> Draw:
        """What stands at an index of an epoch; without `shuffled` the sources stand one behind the other, for a sampler to shuffle."""
        if shuffled:
            index = int(_interleaved(self.seed, epoch, tuple(self.counts))[index])
        which = int(np.searchsorted(self.ends, index, side="right"))
        count, size = self.counts[which], self.sizes[which]
        turn, offset = divmod(epoch * count + index - (self.ends[which] - count), size)
        return Draw(which, int(_order(self.seed, which, turn, size, self.blocks_of[which])[offset]))


def _apportion(total: int, weights: Sequence[float]) -> list[int]:
    """Whole numbers that add up to `total`, at least one each, as near to the weights' shares as can be (largest remainders)."""
    shares = np.asarray(weights, float) / sum(weights) * total
    counts = np.maximum(np.floor(shares).astype(int), 1)
    by_remainder = np.argsort(counts - shares, kind="stable")  # one that was raised to 1 has none left
    for which in by_remainder[: max(0, total - int(counts.sum()))]:
        counts[which] += 1
    return [int(count) for count in counts]


@lru_cache(maxsize=64)
def _order(
    seed: int, source: int, turn: int, size: int, blocks: tuple[int, ...] | None = None, window: int = 4
) -> NDArray[np.int64]:
    """A random order of a source; of one in blocks, `window` random blocks at a time, their clips among each other."""
    generator = np.random.default_rng([seed, source, turn])
    if blocks is None:
        return generator.permutation(size)
    clips = np.split(np.arange(size), np.cumsum(blocks)[:-1])
    order = generator.permutation(len(blocks))
    parts = [[clips[b] for b in order[i : i + window]] for i in range(0, len(order), window)]
    return np.concatenate([generator.permutation(np.concatenate(part)) for part in parts])


@lru_cache(maxsize=2)
def _interleaved(seed: int, epoch: int, counts: tuple[int, ...]) -> NDArray[np.int64]:
    """An epoch's places, the sources among each other at random, each source's own places rising."""
    labels = np.random.default_rng([seed, epoch]).permutation(np.repeat(np.arange(len(counts)), counts))
    places = np.empty(len(labels), np.int64)
    places[np.argsort(labels, kind="stable")] = np.arange(len(labels))
    return places
