"""Laws of Fréchet distance and KL divergence."""

from typing import Any

import numpy as np
import pytest
import torch

from alm.scoring.sound.distributions import frechet_distance, frechet_estimate, kl_divergence


def draws(n: int, d: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal((n, d))


def test_a_set_is_at_no_distance_from_itself() -> None:
    for n, d in ((50, 4), (5, 40)):  # also with fewer sounds than dimensions
        rows = draws(n, d)
        assert frechet_distance(rows, rows) == pytest.approx(0, abs=1e-9)
        assert frechet_distance(rows, draws(n + 3, d, 1)) > 0
        assert frechet_distance(rows, draws(9, d, 1)) == pytest.approx(frechet_distance(draws(9, d, 1), rows))


def test_the_distance_is_the_closed_form_of_gaussians() -> None:
    a, b = draws(60, 5), draws(80, 5, 1) @ draws(5, 5, 2) + 3
    scipy_linalg = pytest.importorskip("scipy.linalg")
    means, spreads = [x.mean(0) for x in (a, b)], [np.cov(x.T) for x in (a, b)]
    root = scipy_linalg.sqrtm(spreads[0] @ spreads[1]).real
    expected = ((means[0] - means[1]) ** 2).sum() + np.trace(spreads[0] + spreads[1] - 2 * root)
    assert frechet_distance(a, b) == pytest.approx(expected)
    # one dimension: (μ₁ − μ₂)² + (σ₁ − σ₂)²
    x, y = draws(30, 1), 2 * draws(30, 1, 3) + 1
    line = float((x.mean() - y.mean()) ** 2 + (x.std(ddof=1) - y.std(ddof=1)) ** 2)
    assert frechet_distance(x, y) == pytest.approx(line)
    assert frechet_distance(a, a + 2) == pytest.approx(20)  # a shift by 2 in five dimensions


def test_small_sets_of_one_gaussian_are_apart() -> None:
    # as measured elsewhere for 128 dimensions: 17 of 500
    assert frechet_distance(draws(500, 128), draws(500, 128, 1)) == pytest.approx(17, abs=1.5)


def test_the_interval_answers_for_that_bias() -> None:
    found = frechet_estimate(draws(100, 8), draws(100, 8, 1) + 1)
    assert found.low < 8 < found.high and found.n == 100  # the truth
    assert found == frechet_estimate(draws(100, 8), draws(100, 8, 1) + 1)
    near = frechet_estimate(draws(40, 8), draws(40, 8, 1))
    assert near.low == 0 <= near.high < near.value  # the truth is 0


def test_sets_that_cannot_be_compared() -> None:
    with pytest.raises(ValueError, match="two or more"):
        frechet_distance(draws(1, 3), draws(4, 3))
    with pytest.raises(ValueError, match="one size"):
        frechet_distance(draws(4, 2), draws(4, 3))


def test_kl_is_torchs_and_zero_of_the_same() -> None:
    a, b = draws(2, 20)
    assert kl_divergence(a, a) == 0 and kl_divergence(a, a + 5) == pytest.approx(0, abs=1e-12)
    p, q = (torch.from_numpy(x).log_softmax(0) for x in (a, b))
    expected = float(torch.nn.functional.kl_div(q, p, log_target=True, reduction="sum"))
    assert kl_divergence(a, b) == pytest.approx(expected)
    assert kl_divergence(a, b) != pytest.approx(kl_divergence(b, a))
    assert np.isfinite(kl_divergence(1e4 * a, 1e4 * b))
