"""Lengths of a pair, what is found, and what is said where nothing is."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alm.data.example import DataError
from alm.scoring.sound import naturalness
from alm.scoring.sound.base import MetricUnavailable, Pair, local
from alm.scoring.sound.zoo import METRICS, choose


@given(st.integers(1, 5_000), st.integers(1, 5_000), st.sampled_from([8_000, 16_000, 24_000, 44_100]))
def test_both_are_cut_to_the_shorter_at_every_rate(n: int, m: int, rate: int) -> None:
    reference, made = np.arange(n, dtype=np.float32) / n, np.arange(m, dtype=np.float32) / m
    pair = Pair(reference, 24_000, made, rate)
    for at in (16_000, 24_000):
        first, second = pair.at(at)
        assert len(first) == len(second)
        assert abs(len(first) - min(n / 24_000, m / rate) * at) <= 1
    assert pair.cut_reference == max(0, n / 24_000 - m / rate) and pair.cut_made == max(0, m / rate - n / 24_000)
    assert np.array_equal(pair.at(24_000)[0], reference[: len(pair.at(24_000)[0])])


def test_an_empty_clip_is_no_pair() -> None:
    with pytest.raises(ValueError, match="both clips need samples"):
        Pair(np.zeros(0, np.float32), 16_000, np.zeros(5, np.float32), 16_000)


def test_a_missing_package_is_told_with_the_way_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *_: None if name in ("pesq", "torchcrepe") else real(name)
    )
    choice = choose(["pesq", "vuv_f1", "log_mel_l1"])
    assert [metric.name for metric, _ in choice.metrics] == ["log_mel_l1"]
    assert "pip install 'pesq" in choice.unavailable["pesq"] and "--no-deps" in choice.unavailable["vuv_f1"]
    with pytest.raises(DataError, match=r"--require pesq.*pip install"):
        choose(None, ["pesq"])


def test_models_that_are_not_in_a_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_, **__: None)
    monkeypatch.setattr(naturalness.torch.hub, "get_dir", lambda: str(tmp_path))
    choice = choose()
    assert not {"utmos", "sim", "audiobox"} & {metric.name for metric, _ in choice.metrics}
    assert "curl" in choice.unavailable["utmos"] and "Google Drive" in choice.unavailable["sim"]
    assert "hf download facebook/audiobox-aesthetics" in choice.unavailable["audiobox_pq"]
    assert not {"distillmos", "sim_ge2e", "sim_xvector", "vuv_f1_tiny"} & choice.unavailable.keys()  # only when named
    everything = choose(["all"])
    assert "hf download microsoft/wavlm-base-plus-sv" in everything.unavailable["sim_xvector"]


def test_unknown_names_and_paths(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no metric 'stio'.*log_mel_l1, stoi"):
        choose(["stio"])
    with pytest.raises(DataError, match="no metric"):
        choose(None, [], {"nothing": "x"})
    with pytest.raises(MetricUnavailable, match="no such file"):
        local(tmp_path, "model.safetensors")
    assert "takes no checkpoint" in choose(["stoi"], checkpoints={"stoi": "x"}).unavailable["stoi"]


def test_no_two_metrics_share_a_score() -> None:
    scores = [score for metric in METRICS.values() for score in metric.scores]
    assert len(scores) == len(set(scores))
