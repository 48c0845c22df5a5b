"""Mixtures of clip lists: shares, fairness within a source, and independence of what was asked before."""

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from codec.data import Clip, ClipListError
from codec.mixing import Draws, MixedClips, captions_of


def source(name: str, size: int) -> list[Clip]:
    return [Clip(Path(f"{name}{i}"), f"{name} {i}") for i in range(size)]


def epoch(mixed: MixedClips, number: int) -> list[Clip]:
    mixed.set_epoch(number)
    return [mixed[i] for i in range(len(mixed))]  # type: ignore[misc]


@given(
    st.lists(st.tuples(st.integers(1, 40), st.floats(0.01, 100)), min_size=1, max_size=5),
    st.integers(0, 3),
)
def test_shares_follow_the_weights(parts: list[tuple[int, float]], number: int) -> None:
    mixed = MixedClips([source(f"s{k}_", size) for k, (size, _) in enumerate(parts)], [w for _, w in parts])
    counts = Counter(clip.caption.split("_")[0] for clip in epoch(mixed, number))
    total, weight = sum(size for size, _ in parts), sum(w for _, w in parts)
    assert counts.total() == len(mixed)
    # largest remainders, but never less than one clip of a source
    assert all(abs(counts[f"s{k}"] - max(1, total * w / weight)) <= len(parts) for k, (_, w) in enumerate(parts))


def test_no_clip_comes_again_before_all_others_of_its_source() -> None:
    mixed = MixedClips([source("a", 7), source("b", 30)], [3, 1])
    seen = [clip.caption for number in range(5) for clip in epoch(mixed, number)]
    for name, size in (("a", 7), ("b", 30)):
        own = [caption for caption in seen if caption.startswith(name)]
        rounds = [own[i : i + size] for i in range(0, len(own) - size + 1, size)]
        assert all(len(set(part)) == size for part in rounds)
        assert len(rounds) < 2 or rounds[0] != rounds[1]  # each round in an order of its own


def test_an_index_means_one_clip_whatever_was_asked_before() -> None:
    sources = [source("a", 50), source("b", 5)]
    long_run, resumed = MixedClips(sources, [1, 1], seed=3), MixedClips(sources, [1, 1], seed=3)
    for number in range(4):
        expected = epoch(long_run, number)
    resumed.set_epoch(3)
    assert [resumed[i] for i in reversed(range(55))] == expected[::-1]
    assert resumed[-1] == expected[-1]
    assert resumed[10:20] == expected[10:20]
    assert epoch(MixedClips(sources, [1, 1], seed=4), 3) != expected


def test_without_weights_every_clip_comes_once_an_epoch() -> None:
    sources = [source("a", 50), source("b", 5)]
    assert Counter(epoch(MixedClips(sources), 2)) == Counter(sources[0] + sources[1])
    assert sorted(captions_of(MixedClips(sources))) == sorted(clip.caption for clip in sources[0] + sources[1])


@pytest.mark.parametrize("weights", [[1.0], [1.0, 0.0], [1.0, float("inf")]])
def test_weights_must_fit(weights: list[float]) -> None:
    with pytest.raises(ClipListError, match="one positive weight for each of 2 sources"):
        MixedClips([source("a", 2), source("b", 2)], weights)


def test_an_empty_source_is_told() -> None:
    with pytest.raises(ClipListError, match=r"\[2, 0\]"):
        MixedClips([source("a", 2), []])


@given(st.lists(st.integers(1, 10**6), min_size=1, max_size=8))
@example([1, 94, 90, 2])  # 1 / 187 × 187 is below 1 in binary
def test_without_weights_an_epoch_has_each_item_once(sizes: list[int]) -> None:
    assert Draws(sizes).counts == sizes == Draws(sizes, sizes).counts
