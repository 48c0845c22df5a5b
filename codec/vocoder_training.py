"""Losses of vocoder training without discriminators: log-mel and multi-resolution spectra on one batch."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from codec.mel import MelSpec, log_mel
from codec.vocoder import VocosModel

FFT_SIZES = (2048, 1024, 512, 256)


def spectral_loss(made: Tensor, real: Tensor, n_fft: int) -> Tensor:
    """Spectral convergence plus L1 of log magnitudes (Arik et al., 2018) of waveforms `(B, S)` at one resolution, hop n_fft / 4."""
    window = torch.hann_window(n_fft, device=real.device)
    spectra = [
        torch.stft(x, n_fft, n_fft // 4, window=window, return_complex=True).abs().clamp_min(1e-5) for x in (made, real)
    ]
    difference = torch.linalg.vector_norm(spectra[1] - spectra[0], dim=(1, 2))
    convergence = difference / torch.linalg.vector_norm(spectra[1], dim=(1, 2)).clamp_min(1e-3)
    return convergence.mean() + F.l1_loss(spectra[0].log(), spectra[1].log())


class VocoderTraining(nn.Module):
    """Waveforms in, loss out: their mel through the vocoder, compared in log-mel and in spectra of four resolutions.

    Each clip gets a random peak of −1 to −6 dBFS (as Vocos trains), so that the vocoder hears all levels.
    """

    def __init__(self, vocoder: VocosModel, mel_weight: float = 1.0) -> None:
        super().__init__()
        self.vocoder, self.mel_weight = vocoder, mel_weight
        self.spec: MelSpec = vocoder.config.mel_spec

    def forward(self, waveform: Tensor) -> dict[str, Tensor]:
        """Losses of waveforms `(B, S)`, S a multiple of the hop: `loss`, `mel_loss`, `spectral_loss`, each `()`."""
        with torch.no_grad():
            if self.training:
                decibels = torch.rand(len(waveform), 1, device=waveform.device) * 5 - 6
                peak = waveform.abs().amax(1, keepdim=True).clamp_min(1e-4)
                waveform = waveform * (10 ** (decibels / 20) / peak).clamp(max=100.0)
            mel = log_mel(waveform, self.spec)
        made = self.vocoder(mel)
        mel_loss = F.l1_loss(log_mel(made, self.spec), mel)
        spectral = torch.stack([spectral_loss(made, waveform, size) for size in FFT_SIZES]).mean()
        return {
            "loss": self.mel_weight * mel_loss + spectral,
            "mel_loss": mel_loss.detach(),
            "spectral_loss": spectral.detach(),
        }
