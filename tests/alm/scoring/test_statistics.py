import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alm.scoring.statistics import bootstrap, estimate, paired_bootstrap, wilson


def test_wilson_known_values() -> None:
    # 34.3 % of 1,000: the paper's MMAR figure; published Wilson bounds of 81/263 (Newcombe 1998)
    assert wilson(343, 1000).low == pytest.approx(0.3143, abs=1e-4)
    newcombe = wilson(81, 263)
    assert (newcombe.low, newcombe.high) == (pytest.approx(0.2553, abs=1e-4), pytest.approx(0.3662, abs=1e-4))


@given(st.integers(1, 500), st.data())
def test_wilson_stays_in_range_and_mirrors(n: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(0, n))
    found, mirror = wilson(k, n), wilson(n - k, n)
    assert 0 <= found.low <= found.value <= found.high <= 1
    assert found.low == pytest.approx(1 - mirror.high)
    assert wilson(0, n).low == 0 and wilson(n, n).high == 1


def test_wilson_covers_95_percent_on_average() -> None:
    generator = np.random.default_rng(0)
    truth = generator.uniform(0.05, 0.95, 4000)
    found = [wilson(int(successes), 60) for successes in generator.binomial(60, truth)]
    hits = [interval.low <= p <= interval.high for interval, p in zip(found, truth, strict=True)]
    assert np.mean(hits) == pytest.approx(0.95, abs=0.012)


def test_bootstrap_is_seeded_and_close_to_the_normal_interval() -> None:
    values = np.random.default_rng(1).normal(5, 2, 400)
    found = bootstrap(values)
    assert found == bootstrap(values)
    assert found != bootstrap(values, seed=1)
    half = 1.96 * values.std() / 20
    assert found.value == values.mean()
    assert (found.low, found.high) == (
        pytest.approx(values.mean() - half, abs=0.04),
        pytest.approx(values.mean() + half, abs=0.04),
    )


def test_estimate_uses_wilson_for_right_and_wrong() -> None:
    assert estimate([1, 0, 1, 1]) == wilson(3, 4)
    assert estimate([1, 0, 0.5, 1]) == bootstrap([1, 0, 0.5, 1])


def test_paired_bootstrap_uses_the_pairs() -> None:
    generator = np.random.default_rng(2)
    easy = generator.integers(0, 2, 300).astype(float)
    better = easy.copy()
    better[np.flatnonzero(easy == 0)[:12]] = 1
    difference = paired_bootstrap(better, easy)
    assert difference.value == pytest.approx(12 / 300)
    assert difference.low > 0 and difference.p_value < 0.01  # unpaired intervals of the two overlap widely
    assert paired_bootstrap(easy, better).value == -difference.value
    same = paired_bootstrap(easy, easy)
    assert (same.value, same.low, same.high, same.p_value) == (0, 0, 0, 1)


@pytest.mark.parametrize("values", [[], [[1.0]], [float("nan")]])
def test_senseless_vectors_are_refused(values: list) -> None:
    with pytest.raises(ValueError, match="non-empty vector of finite"):
        estimate(values)


def test_unpaired_vectors_are_refused() -> None:
    with pytest.raises(ValueError, match="3 and 2"):
        paired_bootstrap([1, 0, 1], [1, 0])
    with pytest.raises(ValueError, match="5 of 4"):
        wilson(5, 4)
