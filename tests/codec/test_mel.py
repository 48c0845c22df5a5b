import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from codec.mel import MelSpec, griffin_lim, log_mel, overlap_add

SPEC = MelSpec()


def reference_log_mel(waveform: np.ndarray) -> np.ndarray:
    """Appendix B.1 written out in NumPy, frame by frame, with its own mel filters (Slaney's scale and norm)."""
    hop, size = 480, 1024
    padded = np.pad(waveform.astype(np.float64), (0, -len(waveform) % hop))
    padded = np.pad(padded, (272, 272), mode="reflect")
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size)
    frames = np.stack([padded[i : i + size] * window for i in range(0, len(padded) - size + 1, hop)])
    power = np.abs(np.fft.rfft(frames, axis=1)) ** 2

    def to_mel(hertz: float) -> float:
        return 3 * hertz / 200 if hertz < 1000 else 15 + 27 * math.log(hertz / 1000) / math.log(6.4)

    def to_hertz(mel: float) -> float:
        return 200 * mel / 3 if mel < 15 else 1000 * math.exp((mel - 15) * math.log(6.4) / 27)

    edges = np.array([to_hertz(m) for m in np.linspace(0, to_mel(12_000), 130)])
    frequencies = np.linspace(0, 12_000, size // 2 + 1)
    filters = np.zeros((128, len(frequencies)))
    for i in range(128):
        low, centre, high = edges[i : i + 3]
        rise, fall = (frequencies - low) / (centre - low), (high - frequencies) / (high - centre)
        filters[i] = np.maximum(0, np.minimum(rise, fall)) * 2 / (high - low)
    return np.log(np.maximum(power @ filters.T, 1e-10))


def test_equals_an_independent_reference() -> None:
    waveform = 0.1 * np.random.default_rng(0).standard_normal(12_345).astype(np.float32)
    ours = log_mel(torch.from_numpy(waveform), SPEC).numpy()
    np.testing.assert_allclose(ours, reference_log_mel(waveform), atol=2e-4)


@given(st.integers(1, 3_000))
def test_frame_count_law(samples: int) -> None:
    mel = log_mel(torch.full((samples,), 0.1), SPEC)
    assert mel.shape == (math.ceil(samples / 480), 128) == (SPEC.frames(samples), 128)
    assert torch.isfinite(mel).all()


def test_an_empty_waveform_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one sample"):
        log_mel(torch.zeros(0), SPEC)


@given(st.floats(0.01, 1.0))
def test_gain_shifts_every_bin_by_two_log_gain(gain: float) -> None:
    waveform = 0.5 * torch.randn(4_800, generator=torch.Generator().manual_seed(0))
    shift = log_mel(gain * waveform, SPEC) - log_mel(waveform, SPEC)
    torch.testing.assert_close(shift, torch.full_like(shift, 2 * math.log(gain)), atol=1e-3, rtol=0)


def test_every_field_changes_the_fingerprint() -> None:
    prints = {MelSpec(**{name: value * 2 + 1}).fingerprint for name, value in vars(SPEC).items()}
    assert len(prints | {SPEC.fingerprint}) == len(vars(SPEC)) + 1


def test_gradient_reaches_the_waveform() -> None:
    fresh = MelSpec(floor=1.5e-10)  # its filters are made in inference mode and must serve training all the same
    with torch.inference_mode():
        log_mel(torch.zeros(480), fresh)
    log_mel(torch.randn(480, requires_grad=True), fresh).sum().backward()
    waveform = torch.randn(2, 2_400).mul(0.1).requires_grad_()
    log_mel(waveform, SPEC).sum().backward()
    assert waveform.grad is not None
    assert torch.isfinite(waveform.grad).all()


def test_overlap_add_inverts_framing() -> None:
    signal, window = torch.randn(1, 4_000), torch.hann_window(400)
    frames = signal.unfold(1, 400, 100) * window
    torch.testing.assert_close(overlap_add(frames, window, 100)[:, 400:-400], signal[:, 400:-400], atol=1e-5, rtol=0)


def test_griffin_lim_returns_the_mel() -> None:
    hiss = 0.1 * torch.randn(24_000, generator=torch.Generator().manual_seed(0))
    mel = log_mel(hiss, SPEC)
    assert (log_mel(griffin_lim(mel, SPEC), SPEC) - mel).abs().mean() < 0.15
