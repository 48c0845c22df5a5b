"""Use of the codebooks, counted piece by piece."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from alm.scoring.sound.codes import CodeCounts, pack, unpack
from codec.codebook import codebook_use


@given(st.lists(st.lists(st.integers(0, 15), min_size=1, max_size=30), min_size=1, max_size=4), st.integers(1, 3))
def test_pieces_equal_the_whole(clips: list[list[int]], num_codebooks: int) -> None:
    counts = CodeCounts(num_codebooks, 16)
    for clip in clips:
        counts.add(np.stack([(np.array(clip) + k) % 16 for k in range(num_codebooks)]))
    for k, use in enumerate(counts.use()):
        whole = codebook_use(torch.cat([(torch.tensor(clip) + k) % 16 for clip in clips]), 16)
        assert (use.used, use.n) == (whole.used, whole.n)
        assert use.perplexity == pytest.approx(whole.perplexity)
        assert use.perplexity <= use.corrected <= 16 + 1e-9


def test_the_correction_helps() -> None:
    counts = CodeCounts(1, 8_192)
    counts.add(np.random.default_rng(0).integers(0, 8_192, (1, 5_000)))
    (use,) = counts.use()
    assert use.perplexity == pytest.approx(3_441, rel=0.02) and use.corrected == pytest.approx(5_005, rel=0.02)


def test_wrong_codes() -> None:
    counts = CodeCounts(2, 8)
    with pytest.raises(ValueError, match=r"\(2, T\)"):
        counts.add(np.zeros((1, 3), np.int64))
    with pytest.raises(ValueError, match="0 to 7"):
        counts.add(np.full((2, 3), 8))
    assert counts.use()[0].n == 0


@pytest.mark.parametrize("size", [16, 65_536, 70_000])
def test_rows_keep_codes(size: int) -> None:
    codes = np.random.default_rng(0).integers(0, size, (3, 17))
    assert np.array_equal(unpack(pack(codes, size)), codes) and unpack(pack(codes, size)).dtype == np.int64
