"""Stage 2 (eq. 13, B.3): the decoder refined through the sampler of inference, under a mel discriminator; all else stands still.

The discriminator judges what `codec.flow.sample` makes with the codec's own steps and guidance, gradients passing through every step. Its
guards against a frozen critic that is gamed are in `codec.refinement_trainer`; reasons are in docs/paper.md.
"""

import copy
import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from codec.discriminator import (
    MelDiscriminator,
    adversarial_loss,
    discriminator_loss,
    draw_windows,
    feature_loss,
    mean_score,
)
from codec.flow import flow_loss, noise, sample
from codec.modeling import EntangleCodecModel


class RefinementError(ValueError):
    """A stage 2 that cannot begin: says what does not fit."""


class Refined(NamedTuple):
    """`flow_loss` `()` of the whole batch (eq. 9); `made` `(k, T, bins)`: the sampler's mel of the first k clips."""

    flow_loss: Tensor
    made: Tensor


class DecoderRefinement(nn.Module):
    """The decoder of a codec with what it needs of the frozen rest: the codebook's unit rows.

    Trains `codec.decoder` in place. Everything else of the codec is neither in this module nor, from now on, open to gradients.

    Args:
        time_zero_share: share of exactly t = 0 in eq. 9, the time that one-step sampling visits (the codec's stage 1 had its own).
        sampled_share: part of each batch that goes through the sampler, for the discriminator.
    """

    rows: Tensor

    def __init__(self, codec: EntangleCodecModel, time_zero_share: float = 0.5, sampled_share: float = 0.5) -> None:
        super().__init__()
        codec.requires_grad_(False)
        self.config = copy.deepcopy(codec.config)
        self.decoder = codec.decoder.requires_grad_(True)
        self.time_zero_share, self.sampled_share = time_zero_share, sampled_share
        self.register_buffer("rows", codec.quantizer.unit_codebook().detach().clone(), persistent=False)

    def forward(self, mel: Tensor, codes: Tensor, attention_mask: Tensor | None = None) -> Refined:
        """Flow loss and made mel of true `mel` `(B, T, bins)`, `codes` `(B, T)`; in evaluation mode noise and times are fixed."""
        vectors = F.embedding(codes, self.rows)
        flow = flow_loss(self.decoder, mel, vectors, attention_mask, self.config, self.time_zero_share)
        k = math.ceil(self.sampled_share * len(mel)) if self.training else len(mel)
        z = torch.randn_like(mel[:k]) if self.training else self._fixed_noise(mel)
        mask = None if attention_mask is None else attention_mask[:k]
        made = sample(self.decoder, vectors[:k], z, mask, self.config.num_steps, self.config.guidance_scale)
        return Refined(flow, made)

    def _fixed_noise(self, mel: Tensor) -> Tensor:
        return noise(mel.shape[1], mel.shape[2], range(len(mel)), mel.device)


class Verdict(NamedTuple):
    """`adversarial` and `features`: losses for the decoder, with gradient; `margins`: mean score of true less that of made mel."""

    adversarial: Tensor
    features: Tensor
    margins: dict[str, Tensor]


class Critics:
    """The discriminator that the decoder learns from and, optionally, a witness of another seed that it never does.

    Both are frozen: a decoder that games the first does not fool the second, and their margins part.
    """

    def __init__(self, discriminator: MelDiscriminator, witness: MelDiscriminator | None = None) -> None:
        self.discriminator = discriminator.requires_grad_(False).eval()
        self.witness = None if witness is None else witness.requires_grad_(False).eval()

    def to(self, device: torch.device) -> "Critics":
        """Move both."""
        for critic in (self.discriminator, self.witness):
            if critic is not None:
                critic.to(device)
        return self

    def judge(self, mel: Tensor, made: Tensor, lengths: list[int], generator: torch.Generator | None = None) -> Verdict:
        """Judge the same windows of true and made mel `(B, T, bins)`; gradients go to `made` alone."""
        critic = self.discriminator
        windows = draw_windows(lengths, critic.sizes, generator)
        with torch.no_grad():
            real = critic(mel, windows)
        fake = critic(made, windows)
        margins = {"critic_margin": _margin(real.scores, fake.scores)}
        if self.witness is not None:
            windows = draw_windows(lengths, self.witness.sizes, generator)
            with torch.no_grad():
                scores = [self.witness(x, windows).scores for x in (mel, made)]
            margins["witness_margin"] = _margin(*scores)
        return Verdict(
            adversarial_loss(fake.scores, critic.config.objective), feature_loss(real.features, fake.features), margins
        )

    def lesson(self, mel: Tensor, made: Tensor, lengths: list[int]) -> Tensor:
        """The discriminator's own loss `()` on the same kind of windows, for training it along; gradients go to it alone."""
        critic = self.discriminator
        windows = draw_windows(lengths, critic.sizes)
        both = critic(mel, windows), critic(made.detach(), windows)
        return discriminator_loss(both[0].scores, both[1].scores, critic.config.objective)


def _margin(real: list[Tensor], made: list[Tensor]) -> Tensor:
    return mean_score(real).detach() - mean_score(made).detach()


@torch.no_grad()
def endpoint_statistics(mel: Tensor, made: Tensor, attention_mask: Tensor | None) -> dict[str, Tensor]:
    """How made mel `(B, T, bins)` differs from the true, over real frames, each `()`.

    `endpoint_l1`: mean absolute error; `std_ratio`: made over true deviation, mean over bins (under 1: blur); `mean_shift`: mean
    absolute difference of the bins' means.
    """
    if attention_mask is not None:
        mel, made = mel[attention_mask.bool()], made[attention_mask.bool()]
    mel, made = mel.flatten(0, -2).float(), made.flatten(0, -2).float()  # (frames, bins)
    ratio = made.std(0, correction=0) / mel.std(0, correction=0).clamp_min(1e-3)
    shift = (made.mean(0) - mel.mean(0)).abs()
    return {"endpoint_l1": F.l1_loss(made, mel), "std_ratio": ratio.mean(), "mean_shift": shift.mean()}


@torch.no_grad()
def vq_loss(codec: EntangleCodecModel, mel: Tensor, codes: Tensor) -> tuple[float, float]:
    """Eq. 11 of one whole clip, mean over frames, and the share of its codes that the codec gives again.

    In stage 2 nothing in it moves, so that L_vq of eq. 13 is a constant of codec and corpus. `mel` `(T, bins)`, `codes` `(T,)`.
    """
    latents: Tensor = codec.encode(mel[None])["latents"][0]
    distance = (latents - codec.quantizer.lookup(codes)).square().sum(-1).mean()
    agreement = (codec.quantizer.search(latents) == codes).float().mean()
    return (1 + codec.config.commitment) * float(distance), float(agreement)
