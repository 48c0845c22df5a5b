"""Laws of the draws and effects: splits never share a cell, levels and ratios are what was asked for."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alm.data.demo.effects import (
    CELLS,
    SAMPLING_RATE,
    TEST_CELLS,
    Draws,
    active_rms,
    band_noise,
    decay,
    fade,
    mix_at,
    place,
    reverberate,
    rms,
    seconds,
    set_level,
)


@given(st.integers(0, 2**31), st.text(min_size=1, max_size=8))
def test_test_parameters_lie_in_cells_that_training_never_uses(seed: int, name: str) -> None:
    train, test = Draws(seed, name, "train"), Draws(seed, name, "test")
    train_cells = {int(train.uniform(0, CELLS)) for _ in range(50)}
    test_cells = {int(test.uniform(0, CELLS)) for _ in range(50)}
    assert test_cells <= set(TEST_CELLS)
    assert not train_cells & test_cells


def test_draws_depend_on_seed_and_name_alone() -> None:
    values = {key: Draws(*key, "train").noise(5).tobytes() for key in [(0, "a"), (0, "b"), (1, "a")]}
    assert len(set(values.values())) == 3
    assert values[0, "a"] == Draws(0, "a", "test").noise(5).tobytes()


@given(st.integers(200, 30_000), st.floats(100, 1_000), st.floats(1_500, 8_000))
def test_band_noise_has_unit_level_and_stays_in_its_band(samples: int, low: float, high: float) -> None:
    wave = band_noise(Draws(0, "x", "train"), samples, low, high)
    assert len(wave) == samples and np.isfinite(wave).all()
    assert rms(wave) == pytest.approx(1.0)
    if samples > 8_000:
        power = np.abs(np.fft.rfft(wave)) ** 2
        f = np.fft.rfftfreq(samples, 1 / SAMPLING_RATE)
        assert power[(f > low / 1.2) & (f < high * 1.2)].sum() > 0.85 * power.sum()


@given(st.floats(-10, 20))
def test_mix_has_the_ratio_asked_for(ratio: float) -> None:
    draws = Draws(0, "mix", "train")
    signal, noise = draws.noise(24_000), 7.0 * draws.noise(24_000)
    added = mix_at(signal, noise, ratio) - signal
    assert 20 * np.log10(active_rms(signal) / rms(added)) == pytest.approx(ratio, abs=1e-6)


def test_active_level_ignores_pauses() -> None:
    tone = np.sin(np.arange(24_000) * 0.3)
    assert active_rms(np.concatenate([tone, np.zeros(48_000)])) == pytest.approx(active_rms(tone), rel=1e-3)


@given(st.floats(-40, -3), st.floats(0.01, 30))
def test_level_is_set_and_the_peak_stays_below_full_scale(level: float, gain: float) -> None:
    wave = set_level(gain * Draws(0, "level", "train").noise(4_800), level)
    assert np.abs(wave).max() <= 0.95 + 1e-12
    reached = 20 * np.log10(active_rms(wave))
    assert reached == pytest.approx(level, abs=1e-6) or np.abs(wave).max() == pytest.approx(0.95)


def test_place_adds_and_cuts() -> None:
    out = place(
        10, [(0.0, np.ones(4)), (2 / SAMPLING_RATE, np.ones(4)), (8 / SAMPLING_RATE, np.ones(9)), (1.0, np.ones(3))]
    )
    assert out.tolist() == [1, 1, 2, 2, 1, 1, 0, 0, 1, 1]


def test_fade_and_decay_start_and_end_silent() -> None:
    faded = fade(np.ones(seconds(0.1)), 0.01, 0.01)
    assert faded[0] == 0 and faded[-1] == 0 and faded[1_000] == 1
    envelope = decay(seconds(0.5), 0.5)
    assert envelope[0] == 0 and envelope.max() <= 1 and envelope[-1] < 1e-3


def test_reverberation_lengthens_a_click_and_keeps_the_clip_length() -> None:
    click = np.zeros(12_000)
    click[100] = 1.0
    wet = reverberate(Draws(0, "room", "train"), click, 0.4, 0.5)
    assert len(wet) == len(click)
    assert rms(wet[5_000:8_000]) > 0 and rms(wet[:100]) < 1e-9
