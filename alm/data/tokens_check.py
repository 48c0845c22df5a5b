"""What a token store holds, counted, and what is wrong with it."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from alm.data.tokens_format import StoreContract
from alm.data.tokens_tables import ClipIndex, Shard, content_digest


class Statistics(NamedTuple):
    """What a store holds. `used` (share of codes that occur) and `perplexity` (at most the codebook's size): one per codebook."""

    clips: int
    hours: float
    tokens: int
    used: tuple[float, ...]
    perplexity: tuple[float, ...]


def statistics(index: ClipIndex, contract: StoreContract) -> Statistics:
    """Totals, codebook use and perplexity; reads every code once."""
    K, size = contract.num_codebooks, contract.codebook_size
    counts = np.zeros((K, size), np.int64)
    seconds = 0.0
    for number, shard in enumerate(index.shards):
        fresh = index.fresh(number)
        flat = shard.values[np.repeat(fresh, np.diff(shard.offsets))]
        counts += np.stack([np.bincount(flat[k::K], minlength=size) for k in range(K)])
        seconds += float(shard.seconds[fresh].sum())
    p = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    entropy = -(p * np.log(np.where(p > 0, p, 1))).sum(axis=1)
    used, perplexity = (counts > 0).mean(axis=1).tolist(), np.exp(entropy).tolist()
    return Statistics(len(index), seconds / 3600, int(counts.sum()), tuple(used), tuple(perplexity))


def shard_problems(shard: Shard, contract: StoreContract) -> list[str]:
    """Check a shard's bytes against the hash in its name, its shapes, its codes' range and the order of its keys."""
    problems: list[str] = []
    if not shard.path.stem.endswith(content_digest(shard.path)):
        problems.append(f"{shard.path}: its bytes do not fit the hash in its name: damaged")
    lengths: NDArray[np.integer[Any]] = np.diff(shard.offsets)
    if (lengths != shard.num_frames * contract.num_codebooks).any():
        problems.append(f"{shard.path}: clips whose codes are not num_frames × {contract.num_codebooks}")
    if shard.values.size and shard.values.max() >= contract.codebook_size:
        problems.append(f"{shard.path}: code {shard.values.max()} outside [0, {contract.codebook_size})")
    if (shard.keys[1:] <= shard.keys[:-1]).any():
        problems.append(f"{shard.path}: keys that are not in order, or twice the same")
    return problems
