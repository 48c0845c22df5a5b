"""Voiced/unvoiced F1 and the network under it."""

from itertools import pairwise, product
from pathlib import Path

import numpy as np
import pytest
import torch

from alm.scoring.sound.base import Found, MetricUnavailable
from alm.scoring.sound.voicing import (
    BINS,
    VUV_F1_TINY,
    WINDOW,
    Crepe,
    _a_weighting,
    _bin,
    loudness,
    periodicity,
    viterbi,
    voiced,
    voiced_f1,
)


def test_f1_by_hand() -> None:
    original = np.array([1, 1, 1, 1, 0, 0, 0, 0], bool)
    made = np.array([1, 1, 1, 0, 1, 0, 0, 0], bool)
    # 3 right, 1 too many, 1 lost: precision 3/4, recall 3/4
    assert voiced_f1(original, made) == pytest.approx(0.75)
    assert voiced_f1(original, np.array([1] * 8, bool)) == pytest.approx(2 * 0.5 * 1 / 1.5)
    assert voiced_f1(original, original) == 1
    assert voiced_f1(original, ~original) == 0
    assert voiced_f1(original, np.zeros(8, bool)) == 0  # all voicing lost: the worst, not undefined
    assert np.isnan(voiced_f1(np.zeros(8, bool), np.zeros(8, bool)))


def test_viterbi_against_all_paths() -> None:
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.ones(3), 5).astype(np.float32)
    transition = rng.dirichlet(np.ones(3), 3)

    def likelihood(path: tuple[int, ...]) -> float:
        value = float(np.prod([probabilities[t, s] for t, s in enumerate(path)]))
        return value * float(np.prod([transition[a, b] for a, b in pairwise(path)]))

    best = max(product(range(3), repeat=5), key=likelihood)
    assert tuple(viterbi(probabilities, transition)) == best


def test_constants_of_the_scale() -> None:
    frequencies = np.fft.rfftfreq(WINDOW, 1 / 16_000)
    assert _a_weighting()[abs(frequencies - 1_000).argmin()] == pytest.approx(
        0, abs=0.02
    )  # 0 dB at 1 kHz by definition
    assert _a_weighting()[abs(frequencies - 100).argmin()] == pytest.approx(-19.1, abs=1.5)
    assert _a_weighting()[0] == -80
    assert 0 < _bin(50, np.floor) < _bin(550, np.ceil) < BINS


def test_network_and_silence() -> None:
    torch.manual_seed(0)
    model = Crepe("tiny").eval()
    wave = (0.1 * np.random.default_rng(0).standard_normal(8_000)).astype(np.float32)
    windows = torch.from_numpy(wave).unfold(0, WINDOW, 160)
    values = periodicity(windows, model)
    assert values.shape == (1 + (8_000 - WINDOW) // 160,) and ((values > 0) & (values < 1)).all()
    assert np.array_equal(values, periodicity(windows, model, batch=7))
    assert voiced(wave, model).all()  # an untrained network says about 0.5 everywhere
    wave[4_000:] = 0
    assert not voiced(wave, model)[-10:].any() and voiced(wave, model)[:10].all()
    assert loudness(windows).mean() > -60


def test_weights_are_read_strictly(tmp_path: Path) -> None:
    (tmp_path / "assets").mkdir()
    # the package's convolutions have a second side of 1
    state = {name: w[..., None] if w.ndim == 3 else w for name, w in Crepe("tiny").state_dict().items()}
    torch.save(state, tmp_path / "assets" / "tiny.pth")
    wave = (0.1 * np.random.default_rng(0).standard_normal(4_000)).astype(np.float32)
    measure = VUV_F1_TINY.load(Found("", tmp_path), "cpu")
    assert measure(wave, wave) == {"vuv_f1_tiny": 1.0}
    assert np.isnan(measure(wave[:1_000], wave[:1_000])["vuv_f1_tiny"])
    state.pop("classifier.bias")
    torch.save(state, tmp_path / "assets" / "tiny.pth")
    with pytest.raises(MetricUnavailable, match=r"lacks \['classifier.bias'\]"):
        VUV_F1_TINY.load(Found("", tmp_path), "cpu")
