"""Metrics computed from the two signals alone: log-mel error, STOI, PESQ."""

import importlib

from alm.scoring.reconstruction import log_mel_error, stoi
from alm.scoring.sound.base import Found, Measure, Metric, Values, Waveform, package
from codec.mel import MelSpec

MEL = MelSpec(sampling_rate=24_000, num_mel_bins=128, n_fft=1024, hop_length=480, floor=1e-10, mean=0.0, std=1.0)
"""The mel of the log-mel error, one for all codecs whatever their own: natural logarithm of power, floor at a magnitude of 1e-5."""
MIN_PESQ_SAMPLES = 4_000
"""A quarter of a second at 16 kHz; shorter clips crash or confuse the reference implementation."""


def _load_log_mel(found: Found, device: str) -> Measure:
    def measure(reference: Waveform | None, made: Waveform) -> Values:
        assert reference is not None
        return {"log_mel_l1": log_mel_error(reference, made, MEL)}

    return measure


def _load_stoi(found: Found, device: str) -> Measure:
    def measure(reference: Waveform | None, made: Waveform) -> Values:
        assert reference is not None
        return {"stoi": stoi(reference, made, 24_000)}

    return measure


def _load_pesq(found: Found, device: str) -> Measure:
    module = importlib.import_module("pesq")

    def measure(reference: Waveform | None, made: Waveform) -> Values:
        assert reference is not None
        if len(reference) < MIN_PESQ_SAMPLES or not made.any():
            return {"pesq": float("nan")}
        # -1 stands for "no utterance found" and the like: undefined, and no score of this scale (about 1.0 to 4.64)
        value = float(module.pesq(16_000, reference, made, "wb", on_error=module.PesqError.RETURN_VALUES))
        return {"pesq": value if value > 0 else float("nan")}

    return measure


LOG_MEL = Metric(
    "log_mel_l1", {"log_mel_l1": "nats of power"}, 24_000, lambda path: Found(f"mel {MEL.fingerprint}"), _load_log_mel
)
STOI = Metric("stoi", {"stoi": "about 0 to 1"}, 24_000, package("pystoi", "'pystoi>=0.4.1'"), _load_stoi)
PESQ = Metric(
    "pesq",
    {"pesq": "MOS-LQO, wide band, about 1.0 to 4.64"},
    16_000,
    package("pesq", "'pesq>=0.0.4' (its source needs a C compiler)"),
    _load_pesq,
)
