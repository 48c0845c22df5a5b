"""Pre-training of the mel discriminator: true log-mel against what a stage-1 codec makes of its own codes."""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from codec.coded_crops import lengths_of
from codec.discriminator import Judgement, MelDiscriminator, discriminator_loss, draw_windows
from codec.flow import noise, sample
from codec.modeling import EntangleCodecModel
from codec.parts_trainer import PartsTrainer


class Shares(NamedTuple):
    """Parts of a batch whose made mel comes from the codec's sampler, from it with 4–8 steps, and, the rest, from spoiling the true mel."""

    sampled: float = 0.5
    many_steps: float = 0.25


class MadeMel:
    """Log-mel that a frozen codec's sampler makes of codes. Not part of the module that is trained, nor of its checkpoints."""

    def __init__(self, codec: EntangleCodecModel, shares: Shares) -> None:
        self.codec, self.shares = codec.eval().requires_grad_(False), shares

    @torch.no_grad()
    def sampled(
        self, mel: Tensor, codes: Tensor, mask: Tensor | None, num_steps: int | None = None, z: Tensor | None = None
    ) -> Tensor:
        """Made mel `(B, T, bins)` of `codes` `(B, T)`, in the shape of `mel`; the sampler is that of `decode`."""
        if self.codec.device != mel.device:
            self.codec.to(mel.device)
        config = self.codec.config
        z = torch.randn_like(mel) if z is None else z
        steps = config.num_steps if num_steps is None else num_steps
        vectors = self.codec.quantizer.lookup(codes)
        return sample(self.codec.decoder, vectors, z, mask, steps, config.guidance_scale)

    @torch.no_grad()
    def mixed(self, mel: Tensor, codes: Tensor, mask: Tensor | None) -> Tensor:
        """As `sampled`, of the three kinds in their shares: a critic of one kind of flaw alone is soon misled."""
        draw, steps = torch.rand(len(mel)), int(torch.randint(4, 9, ()))
        lengths = lengths_of(codes, mask)
        kind = (draw >= self.shares.sampled).long() + (draw >= self.shares.sampled + self.shares.many_steps).long()
        made = torch.zeros_like(mel)
        for number, num_steps in ((0, None), (1, steps)):
            rows = (kind == number).nonzero()[:, 0].to(mel.device)
            if len(rows):
                made[rows] = self.sampled(mel[rows], codes[rows], None if mask is None else mask[rows], num_steps)
        for row in (kind == 2).nonzero()[:, 0].tolist():
            made[row, : lengths[row]] = spoil(mel[row, : lengths[row]])
        return made


def spoil(mel: Tensor) -> Tensor:
    """A true log-mel `(T, bins)` blurred over 3–9 frames or bins, or with noise of deviation 0.05–0.3 on it."""
    kind, width = int(torch.randint(3, ())), 2 * int(torch.randint(1, 5, ())) + 1
    if kind == 2:
        return mel + (0.05 + 0.25 * float(torch.rand(()))) * torch.randn_like(mel)
    lines = mel.T if kind == 0 else mel
    blurred = F.avg_pool1d(lines[None], width, stride=1, padding=width // 2, count_include_pad=False)[0]
    return blurred.T if kind == 0 else blurred


class DiscriminatorTraining(nn.Module):
    """Mel and codes in, the discriminator's loss out, with a penalty on its slope at true mel (R1, Mescheder et al., 2018)."""

    def __init__(
        self,
        discriminator: MelDiscriminator,
        codec: EntangleCodecModel,
        r1_weight: float = 1.0,
        shares: Shares = Shares(),  # noqa: B008 (immutable)
    ) -> None:
        super().__init__()
        discriminator.require_mel(codec.config.mel_spec, "the codec")
        self.discriminator, self.r1_weight = discriminator, r1_weight
        self.made = MadeMel(codec, shares)

    def forward(self, mel: Tensor, codes: Tensor, attention_mask: Tensor | None = None) -> dict[str, Tensor]:
        """Losses of true `mel` `(B, T, bins)` with its `codes` `(B, T)`.

        Gives `loss`, `discriminator_loss`, `r1`, `margin` (mean score of true mel less that of made mel) and `accuracy` (share of windows
        put on the right side), each `()`. In evaluation mode noise and windows are fixed and all made mel is the codec's own.
        """
        lengths, sizes = lengths_of(codes, attention_mask), self.discriminator.sizes
        if self.training:
            windows = draw_windows(lengths, sizes)
            made = self.made.mixed(mel, codes, attention_mask)
        else:
            windows = draw_windows(lengths, sizes, torch.Generator().manual_seed(0))
            z = noise(mel.shape[1], mel.shape[2], range(len(mel)), mel.device)
            made = self.made.sampled(mel, codes, attention_mask, z=z)
        punished = self.training and self.r1_weight > 0
        mel = mel.detach().requires_grad_(punished)
        with torch.autocast(mel.device.type, enabled=False):
            real, fake = self.discriminator(mel, windows), self.discriminator(made, windows)
            return self._losses(mel, real, fake, punished)

    def _losses(self, mel: Tensor, real: Judgement, fake: Judgement, punished: bool) -> dict[str, Tensor]:
        objective = self.discriminator.config.objective
        loss = discriminator_loss(real.scores, fake.scores, objective)
        r1 = slope_penalty(mel, real.scores) if punished else torch.zeros_like(loss)
        means = [torch.cat([s.detach().mean(1) for s in j.scores]) for j in (real, fake)]
        edge = 0.0 if objective == "hinge" else 0.5
        right = torch.cat([means[0] > edge, means[1] < edge]).float()
        return {
            "loss": loss + 0.5 * self.r1_weight * r1,
            "discriminator_loss": loss.detach(),
            "r1": r1.detach(),
            "margin": (means[0].mean() - means[1].mean()).nan_to_num(),
            "accuracy": right.mean().nan_to_num(),
        }


def slope_penalty(mel: Tensor, scores: list[Tensor]) -> Tensor:
    """Squared norm `()` of the scores' gradient with respect to the true mel `(B, T, bins)`, mean over clips."""
    total = torch.stack([score.mean(1).sum() for score in scores]).sum()
    (slope,) = torch.autograd.grad(total, mel, create_graph=True)
    return slope.square().sum((1, 2)).mean()


class DiscriminatorTrainer(PartsTrainer):
    """Trainer of `DiscriminatorTraining`; ends where held-out accuracy reaches `stop_accuracy`.

    A discriminator that is always right has no slope where the decoder's mel lies: nothing could be learned from it.
    """

    def __init__(self, *args: Any, stop_accuracy: float | None = None, **kwargs: Any) -> None:
        super().__init__(*args, compute_metrics=lambda p: {"accuracy": float(p.predictions.mean())}, **kwargs)
        self.stop_accuracy = stop_accuracy

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Tensor], return_outputs: bool = False, **_: Any
    ) -> Tensor | tuple[Tensor, Any]:
        """The module's loss; its parts are counted for the log."""
        outputs = model(**inputs)
        if model.training:
            self.count({name: value for name, value in outputs.items() if name != "loss"})
        return (outputs["loss"], outputs) if return_outputs else outputs["loss"]

    @torch.no_grad()
    def prediction_step(self, model: nn.Module, inputs: dict[str, Tensor], *_: Any, **__: Any) -> Any:
        """Loss and, for each clip of the batch, the batch's accuracy."""
        inputs = self._prepare_inputs(inputs)
        outputs = model(**inputs)
        accuracy = outputs["accuracy"].repeat(len(inputs["mel"]))
        return outputs["loss"].detach(), accuracy, accuracy

    def reason_to_stop(self, logs: Any) -> str | None:
        """Held-out accuracy has reached its limit."""
        accuracy = logs.get("eval_accuracy")
        if self.stop_accuracy is None or accuracy is None or accuracy < self.stop_accuracy:
            return None
        return f"held-out accuracy {accuracy:.3f} has reached --stop_accuracy {self.stop_accuracy}"
