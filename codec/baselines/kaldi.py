"""Kaldi's log-mel filter bank, for the semantic half of X-Codec2.

Transformers computes it with torchaudio, which a baseline should not need: torchaudio's wheel is linked to CUDA and, beside a
CPU build of torch, breaks every import of Transformers. The steps and their order in float32 are those of
`torchaudio.compliance.kaldi.fbank`, so that the codes are the same; https://kaldi-asr.org/doc/feat.html documents them.
"""

import math
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

FRAME, SHIFT, FFT, MEL_BINS, LOW_HZ, RATE = 400, 160, 512, 80, 20.0, 16_000
PREEMPHASIS = 0.97


def kaldi_fbank(waveform: Tensor) -> Tensor:
    """Log energies `(frames, 80)` of a waveform `(S,)` at 16 kHz on the 16-bit scale, frames of 25 ms every 10 ms, whole frames only.

    Needs `S ≥ 400`. No dither; the mean of each frame is removed, then pre-emphasis, Povey's window, power spectrum.
    """
    frames = waveform.unfold(0, FRAME, SHIFT)  # (frames, 400)
    frames = frames - frames.mean(dim=1, keepdim=True)
    before = F.pad(frames[:, None], (1, 0), mode="replicate")[:, 0, :-1]
    frames = (frames - PREEMPHASIS * before) * _window().to(frames)
    power = torch.fft.rfft(F.pad(frames, (0, FFT - FRAME))).abs().pow(2.0)  # (frames, 257)
    energies = torch.mm(power, _filters().to(power).T)
    return energies.clamp(min=torch.finfo(torch.float32).eps).log()


def _window() -> Tensor:
    return torch.hann_window(FRAME, periodic=False).pow(0.85)


def _mel(hertz: float) -> float:
    return 1127.0 * math.log(1.0 + hertz / 700.0)


@lru_cache(maxsize=1)
def _filters() -> Tensor:
    """Triangles `(80, 257)` on the mel scale, from 20 Hz to half the rate; the last bin is never used."""
    with torch.inference_mode(False):  # the cached tensor may serve outside inference mode, too
        low, step = _mel(LOW_HZ), (_mel(RATE / 2) - _mel(LOW_HZ)) / (MEL_BINS + 1)
        band = torch.arange(MEL_BINS)[:, None]
        left, centre, right = low + band * step, low + (band + 1.0) * step, low + (band + 2.0) * step
        bins = 1127.0 * (1.0 + RATE / FFT * torch.arange(FFT // 2) / 700.0).log()
        rising, falling = (bins - left) / (centre - left), (right - bins) / (right - centre)
        return F.pad(torch.minimum(rising, falling).clamp(min=0.0), (0, 1))
