"""Vocos training as published: discriminators and losses of the package `vocos` (the extra `vocoder`), behind one module.

The package is imported when a training with discriminators begins, never before; decoding does not need it. The losses' weights and
sums are those of `configs/vocos.yaml` and `VocosExp` of https://github.com/gemelo-ai/vocos.
"""

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Literal

import torch
from torch import Tensor, nn

from codec.vocoder import VocosModel
from codec.vocoder_training import DecodedMel, VocoderTraining

PERIODS = (2, 3, 5, 7, 11)
FFT_SIZES = (2048, 1024, 512)


class VocosPackageError(ValueError):
    """The package `vocos` is not there or cannot be imported: says how to get it."""


def import_package(module: str) -> ModuleType:
    """A module of the package `vocos`. Raises `VocosPackageError`."""
    try:
        return importlib.import_module(f"vocos.{module}")
    except ImportError as error:
        raise VocosPackageError(
            f"training with discriminators takes them from the package vocos, which cannot be imported ({error}): "
            "pip install -c constraints/cpu.txt -e '.[vocoder]' (without -c where there is an NVIDIA GPU), "
            "or train without discriminators: --adversarial false"
        ) from error
    except OSError as error:  # torchaudio of another build than torch
        raise VocosPackageError(
            f"the package vocos needs torchaudio, whose compiled part does not fit the installed torch ({error}). "
            "`import codec` cures that, before anything imports Transformers"
        ) from error


class AdversarialVocoderTraining(VocoderTraining):
    """Vocoder with multi-period and multi-resolution discriminators; `forward` gives one side's losses in its turn."""

    def __init__(
        self,
        vocoder: VocosModel,
        mel_weight: float = 45.0,
        mrd_weight: float = 0.1,
        decoded: DecodedMel | None = None,
    ) -> None:
        """Raises `VocosPackageError` where the package is not there."""
        super().__init__(vocoder, mel_weight, decoded)
        judges, losses = import_package("discriminators"), import_package("loss")
        self.mrd_weight = mrd_weight
        self.judges = nn.ModuleList(
            [judges.MultiPeriodDiscriminator(PERIODS), judges.MultiResolutionDiscriminator(FFT_SIZES)]
        )
        self.discriminator_loss, self.generator_loss = losses.DiscriminatorLoss(), losses.GeneratorLoss()
        self.feature_loss = losses.FeatureMatchingLoss()
        self.mel_loss = losses.MelSpecReconstructionLoss(sample_rate=self.spec.sampling_rate)

    def forward(  # type: ignore[override]
        self, waveform: Tensor, heard: Tensor, turn: Literal["vocoder", "judges"], judged: bool = True
    ) -> dict[str, Tensor]:
        """Losses of waveforms `(B, S)` and the mel `(B, T, bins)` that the vocoder hears (`lesson` gives both).

        In the judges' turn `loss` alone, whose gradients go to the discriminators; in the vocoder's turn `loss` with gradients for the
        vocoder, and `mel_loss`, `adversarial_loss`, `feature_loss` where it is `judged`, each `()`.
        """
        if turn == "judges":
            with torch.no_grad():
                made = self.vocoder(heard)
            return {"loss": self._judges_loss(waveform, made)}
        made = self.vocoder(heard)
        with torch.autocast(made.device.type, enabled=False):
            mel = self.mel_loss(made, waveform)
        losses = {"loss": self.mel_weight * mel, "mel_loss": mel.detach()}
        if judged:
            adversarial, features = self._judgement(waveform, made)
            losses["loss"] = losses["loss"] + adversarial + features
            losses |= {"adversarial_loss": adversarial.detach(), "feature_loss": features.detach()}
        return losses

    def _judges_loss(self, real: Tensor, made: Tensor) -> Tensor:
        total = real.new_zeros(())  # the package's sums have shape (1,): `.sum()` takes it off
        for judge, weight in zip(self.judges, (1.0, self.mrd_weight), strict=True):
            of_real, of_made, _, _ = judge(y=real, y_hat=made)
            total = total + weight * self.discriminator_loss(of_real, of_made)[0].sum() / len(of_real)
        return total

    def _judgement(self, real: Tensor, made: Tensor) -> tuple[Tensor, Tensor]:
        """Adversarial and feature-matching loss of the vocoder; no gradients for the discriminators."""
        adversarial, features = real.new_zeros(()), real.new_zeros(())
        with frozen(self.judges):
            for judge, weight in zip(self.judges, (1.0, self.mrd_weight), strict=True):
                _, of_made, maps_real, maps_made = judge(y=real, y_hat=made)
                adversarial = adversarial + weight * self.generator_loss(of_made)[0].sum() / len(of_made)
                features = features + weight * self.feature_loss(maps_real, maps_made).sum() / len(maps_real)
        return adversarial, features


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Parameters of `module` take no gradients in what is computed inside."""
    module.requires_grad_(False)
    try:
        yield
    finally:
        module.requires_grad_(True)
