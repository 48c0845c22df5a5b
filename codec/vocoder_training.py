"""Vocoder training on one batch: the mel that the vocoder hears, and its losses without discriminators."""

import copy
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from codec.coded_crops import NO_CODE
from codec.configuration import VocosConfig
from codec.entangle import CheckpointError
from codec.mel import MelSpec, log_mel
from codec.modeling import EntangleCodecModel
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


def random_level(waveform: Tensor) -> Tensor:
    """Waveforms `(B, S)` with a random peak of −1 to −6 dBFS each (as Vocos trains), at most 40 dB louder than they were."""
    decibels = torch.rand(len(waveform), 1, device=waveform.device) * 5 - 6
    peak = waveform.abs().amax(1, keepdim=True).clamp_min(1e-4)
    return waveform * (10 ** (decibels / 20) / peak).clamp(max=100.0)


def starting_vocoder(
    codec: EntangleCodecModel, numbers: dict[str, Any], start_from: str | Path | None, own: bool
) -> VocosModel:
    """The vocoder that a training begins with: of the folder `start_from`, a copy of the codec's `own`, or a new one of `numbers`.

    Raises `CheckpointError` where there is nothing to start from, and `ValueError` on a vocoder of another mel.
    """
    if start_from is not None:
        try:
            vocoder, loading = VocosModel.from_pretrained(start_from, output_loading_info=True)
        except OSError as error:
            raise CheckpointError(
                f"--start_from {start_from}: no vocoder can be loaded from there ({error})"
            ) from error
        if missing := sorted(loading["missing_keys"]):
            raise CheckpointError(
                f"--start_from {start_from} lacks {len(missing)} tensors ({', '.join(missing[:3])}, …)"
            )
        vocoder.adapt(codec.config.mel_spec, "the codec")
        return vocoder
    if not own:
        return VocosModel(VocosConfig(mel=codec.config.mel, **numbers))
    if codec.vocoder is None:
        raise CheckpointError(
            "--finetune_on_decoder goes on with a trained vocoder, and this codec has none: train it on true mels first, or name one "
            "with --start_from"
        )
    vocoder = copy.deepcopy(codec.vocoder)
    vocoder.requires_grad_(True)  # a loaded codec is frozen
    return vocoder


class DecodedMel:
    """The mel that a codec's decoder makes of its own codes: what the vocoder hears at inference.

    The sampler is the one of `decode`, with noise of another seed for each clip and batch: a crop's frames stand elsewhere in their
    clip's noise than at its start. The codec is not part of the module that is trained, nor of its checkpoints.
    """

    def __init__(self, codec: EntangleCodecModel) -> None:
        self.codec = codec.eval().requires_grad_(False)

    @torch.no_grad()
    def __call__(self, mel: Tensor, codes: Tensor | None = None) -> Tensor:
        """Decoder's mel `(B, T, bins)` for the true `mel` of that shape, of `codes` `(B, T)` or else of the codes of `mel`.

        Frames of `NO_CODE` are not decoded: they keep their true mel, which is silence.
        """
        if self.codec.device != mel.device:
            self.codec.to(mel.device)
        with torch.autocast(mel.device.type, enabled=False):  # a code decided in bf16 is another code
            if codes is None:
                codes = self.codec.encode(mel).audio_codes[:, 0]
            real = codes != NO_CODE
            mask = None if bool(real.all()) else real.long()
            seeds = torch.randint(2**31, (len(codes),)).tolist()
            decoded = self.codec.decode(codes.clamp_min(0)[:, None], mask, seeds=seeds, vocode=False).mel
        return torch.where(real[..., None], decoded.to(mel.dtype), mel)


class Lesson(NamedTuple):
    """Waveforms `(B, S)` to be made, the mel `(B, T, bins)` that the vocoder hears, and the true mel `(B, T, bins)`."""

    waveform: Tensor
    heard: Tensor
    mel: Tensor


class VocoderTraining(nn.Module):
    """Waveforms in, loss out: their mel through the vocoder, compared in log-mel and in spectra of four resolutions.

    Each clip gets a random level, so that the vocoder hears all of them; not where codes are given, which are of the clip as it is.
    With `decoded`, the vocoder hears the codec decoder's mel in place of the true one.
    """

    def __init__(self, vocoder: VocosModel, mel_weight: float = 1.0, decoded: DecodedMel | None = None) -> None:
        super().__init__()
        self.vocoder, self.mel_weight, self.decoded = vocoder, mel_weight, decoded
        self.spec: MelSpec = vocoder.config.mel_spec

    @torch.no_grad()
    def lesson(self, waveform: Tensor, codes: Tensor | None = None) -> Lesson:
        """What is to be learned from waveforms `(B, S)`, with their codes `(B, T)` where they are known."""
        if self.training and codes is None:
            waveform = random_level(waveform)
        mel = log_mel(waveform, self.spec)
        return Lesson(waveform, mel if self.decoded is None else self.decoded(mel, codes), mel)

    def forward(self, waveform: Tensor, codes: Tensor | None = None) -> dict[str, Tensor]:
        """Losses of waveforms `(B, S)`, S a multiple of the hop: `loss`, `mel_loss`, `spectral_loss`, each `()`."""
        waveform, heard, mel = self.lesson(waveform, codes)
        made = self.vocoder(heard)
        mel_loss = F.l1_loss(log_mel(made, self.spec), mel)
        spectral = torch.stack([spectral_loss(made, waveform, size) for size in FFT_SIZES]).mean()
        return {
            "loss": self.mel_weight * mel_loss + spectral,
            "mel_loss": mel_loss.detach(),
            "spectral_loss": spectral.detach(),
        }
