"""The one log-mel of the project (Appendix B.1), its fingerprint, and Griffin-Lim for debugging."""

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class MelSpec:
    """Everything that decides a log-mel value.

    Appendix B.1 gives `sampling_rate` … `hop_length` and the power spectrogram. It leaves open the mel scale (Slaney scale and
    norm, as in every public relative), the floor, and the framing: the waveform is padded with zeros to whole hops, then
    reflected by `(n_fft − hop) / 2` on each side, so that `S` samples give exactly `ceil(S / hop)` frames.
    `mean` and `std` are one number each, estimated once on the training set: per-utterance statistics could not be undone at
    decoding, where no utterance is known.
    """

    sampling_rate: int = 24_000
    num_mel_bins: int = 128
    n_fft: int = 1024
    hop_length: int = 480
    floor: float = 1e-10
    mean: float = 0.0
    std: float = 1.0

    @property
    def fingerprint(self) -> str:
        """12 hexadecimal digits over all fields; a codec and its vocoder must agree on it."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:12]

    @property
    def frame_rate(self) -> float:
        """Frames per second."""
        return self.sampling_rate / self.hop_length

    def frames(self, samples: int) -> int:
        """Frames `T` of a clip of `S` samples: `ceil(S / hop)`."""
        return -(-samples // self.hop_length)


@lru_cache(maxsize=8)
def _filters(spec: MelSpec) -> Tensor:
    from transformers.audio_utils import mel_filter_bank

    bank = mel_filter_bank(
        num_frequency_bins=spec.n_fft // 2 + 1,
        num_mel_filters=spec.num_mel_bins,
        min_frequency=0.0,
        max_frequency=spec.sampling_rate / 2,
        sampling_rate=spec.sampling_rate,
        norm="slaney",
        mel_scale="slaney",
    )
    with torch.inference_mode(
        False
    ):  # the cached tensor may serve a training step after its first use in inference mode
        return torch.from_numpy(bank).float()  # (n_fft / 2 + 1, mel bins)


def _frames_of(waveforms: Tensor, spec: MelSpec) -> Tensor:
    """Padded waveforms `(N, S')` whose un-centred STFT has `ceil(S / hop)` frames."""
    whole = F.pad(waveforms, (0, -waveforms.shape[-1] % spec.hop_length))
    side = (spec.n_fft - spec.hop_length) // 2
    return F.pad(whole[:, None], (side, side), mode="reflect")[:, 0]


def log_mel(waveforms: Tensor, spec: MelSpec) -> Tensor:
    """Normalised log-mel of waveforms `(…, S)` of one length, float32 in [-1, 1]: `(…, T, mel bins)` float32.

    Clips of different lengths go one by one: padding the waveform would change its last frame. Differentiable.
    Raises `ValueError` on an empty waveform.
    """
    if waveforms.shape[-1] == 0:
        raise ValueError("log_mel needs at least one sample, got an empty waveform")
    flat = waveforms.reshape(-1, waveforms.shape[-1]).float()
    window = torch.hann_window(spec.n_fft, device=flat.device)
    spectrum = torch.stft(
        _frames_of(flat, spec), spec.n_fft, spec.hop_length, window=window, center=False, return_complex=True
    )
    power = spectrum.real.square() + spectrum.imag.square()  # (N, bins, T)
    mel = power.transpose(1, 2) @ _filters(spec).to(flat.device)
    normalised = (mel.clamp_min(spec.floor).log() - spec.mean) / spec.std
    return normalised.reshape(*waveforms.shape[:-1], *normalised.shape[-2:])


def griffin_lim(mel: Tensor, spec: MelSpec, iterations: int = 32) -> Tensor:
    """Waveform `(T × hop,)` from one normalised log-mel `(T, bins)`: a vocoder for debugging, never the default.

    Non-negative least squares would be exact; the pseudo-inverse clipped at zero is enough to listen to.
    """
    power = (mel.float() * spec.std + spec.mean).exp()
    inverse = torch.linalg.pinv(_filters(spec))
    magnitude = (power @ inverse).clamp_min(1e-10).sqrt().T  # (bins, T)
    window = torch.hann_window(spec.n_fft)
    length = mel.shape[0] * spec.hop_length
    generator = torch.Generator().manual_seed(0)
    angles = torch.rand(magnitude.shape, generator=generator) * 2 * torch.pi
    side = (spec.n_fft - spec.hop_length) // 2
    for _ in range(iterations):
        waveform = _inverse_stft(torch.polar(magnitude, angles), spec, window)[side : side + length]
        spectrum = torch.stft(
            _frames_of(waveform[None], spec),
            spec.n_fft,
            spec.hop_length,
            window=window,
            center=False,
            return_complex=True,
        )[0]
        angles = spectrum.angle()
    return _inverse_stft(torch.polar(magnitude, angles), spec, window)[side : side + length]


def _inverse_stft(spectrum: Tensor, spec: MelSpec, window: Tensor) -> Tensor:
    """Overlap-add of the spectrum `(bins, T)` without centring: `((T − 1) × hop + n_fft,)`."""
    return overlap_add(torch.fft.irfft(spectrum, spec.n_fft, dim=0).T[None], window, spec.hop_length)[0]


def overlap_add(frames: Tensor, window: Tensor, hop: int, mask: Tensor | None = None) -> Tensor:
    """Windowed overlap-add of frames `(B, T, n)` divided by the summed squared window: `(B, (T − 1) × hop + n)`.

    Frames where `mask` `(B, T)` is 0 neither sound nor count in the division, so that a padded clip ends as it does alone.
    """
    B, count, size = frames.shape
    length = (count - 1) * hop + size
    present = torch.ones(B, count, device=frames.device) if mask is None else mask.to(frames.dtype)

    def fold(values: Tensor) -> Tensor:  # (B, n, T) -> (B, length)
        return F.fold(values, output_size=(1, length), kernel_size=(1, size), stride=(1, hop))[:, 0, 0]

    total = fold((frames * window * present[..., None]).transpose(1, 2))
    envelope = fold(window.square()[None, :, None] * present[:, None, :])
    return total / envelope.clamp_min(1e-11)
