"""Stage 2 on Transformers' Trainer: the sum of eq. 13, the guards, and a discriminator that may train along."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from codec.coded_crops import lengths_of
from codec.parts_trainer import PartsTrainer
from codec.refinement import Critics, RefinementError, endpoint_statistics
from codec.training import NOT_DECAYED

CRITIC, CRITIC_OPTIMIZER = "critic.safetensors", "critic_optimizer.pt"
"""Files of a checkpoint whose discriminator trains along."""


@dataclass(frozen=True)
class StageTwo:
    """Eq. 13, `flow + vq + adversarial`, and what guards it.

    Attributes:
        vq_loss: L_vq, a constant (`codec.refinement.vq_loss`).
        adversarial_weight, ramp_steps: the paper's 1, reached in a straight line over so many steps.
        feature_weight: of the L1 between the discriminator's hidden maps, ramped alike; the paper names none.
        endpoint_limit: end the run where the endpoint error is so many times that of the first log entry.
        witness_limit: end the run where the critic's margin has fallen by so much more than the witness's, in units of score.
        discriminator_learning_rate: of a discriminator that trains along; None keeps it frozen (B.3).
    """

    vq_loss: float = 0.0
    adversarial_weight: float = 1.0
    feature_weight: float = 0.0
    ramp_steps: int = 5_000
    endpoint_limit: float | None = None
    witness_limit: float | None = None
    discriminator_learning_rate: float | None = None

    def ramp(self, step: int) -> float:
        """Factor of the discriminator's losses at a step, the first being 0."""
        return min(1.0, (step + 1) / max(self.ramp_steps, 1))


class RefinementTrainer(PartsTrainer):
    """Trainer of `DecoderRefinement` under `Critics`.

    A discriminator that trains along takes its step with each of the decoder's, on the mel just made; its weights and its AdamW's state
    lie in each checkpoint. The loss in evaluation mode is the same sum without the ramp, at fixed noise, times and windows.
    """

    def __init__(self, *args: Any, critics: Critics, stage: StageTwo, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.critics, self.stage = critics.to(self.args.device), stage
        self.critic_optimizer: torch.optim.AdamW | None = None
        if stage.discriminator_learning_rate is not None:
            rate = stage.discriminator_learning_rate
            self.critic_optimizer = torch.optim.AdamW(critics.discriminator.parameters(), rate, weight_decay=0.0)

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        """Weight decay for matrices only, as in stage 1."""
        return [
            name
            for name, parameter in model.named_parameters()
            if parameter.ndim > 1 and not any(word in name.split(".")[-1] for word in NOT_DECAYED)
        ]

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Tensor], return_outputs: bool = False, **_: Any
    ) -> Tensor | tuple[Tensor, Any]:
        """Eq. 13; its parts are counted for the log."""
        outputs = model(**inputs)
        made, mel, mask = outputs.made, inputs["mel"], inputs.get("attention_mask")
        mel, mask = mel[: len(made)], None if mask is None else mask[: len(made)]
        lengths = lengths_of(inputs["codes"][: len(made)], mask)
        generator = None if model.training else torch.Generator().manual_seed(0)
        verdict = self.critics.judge(mel, made, lengths, generator)
        stage, ramp = self.stage, self.stage.ramp(self.state.global_step) if model.training else 1.0
        judged = stage.adversarial_weight * verdict.adversarial + stage.feature_weight * verdict.features
        loss = outputs.flow_loss + stage.vq_loss + ramp * judged
        if model.training:
            self._last = mel, made.detach(), lengths
            parts = {
                "flow_loss": outputs.flow_loss,
                "vq_loss": torch.tensor(stage.vq_loss),
                "adversarial_loss": verdict.adversarial,
                "feature_loss": verdict.features,
            }
            self._parts = parts | endpoint_statistics(mel, made, mask) | verdict.margins
        return (loss, outputs) if return_outputs else loss

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        """One forward and backward pass of the decoder and, if it trains along, one of the discriminator on the same mel."""
        loss = super().training_step(*args, **kwargs)
        if self.critic_optimizer is not None:
            self._parts["discriminator_loss"] = self._teach_critic(self.critic_optimizer)
        self.count(self._parts)
        return loss

    def _teach_critic(self, optimizer: torch.optim.Optimizer) -> Tensor:
        critic = self.critics.discriminator.requires_grad_(True).train()
        loss = self.critics.lesson(*self._last)
        (loss / self.current_gradient_accumulation_steps).backward()
        if self.accelerator.sync_gradients:
            for parameter in critic.parameters():
                if (
                    parameter.grad is not None
                ):  # not wrapped for data parallelism: the decoder's losses pass through it, too
                    parameter.grad = self.accelerator.reduce(parameter.grad, "mean")
            optimizer.step()
            optimizer.zero_grad()
        critic.requires_grad_(False).eval()
        return loss.detach()

    @torch.no_grad()
    def prediction_step(self, model: nn.Module, inputs: dict[str, Tensor], *_: Any, **__: Any) -> Any:
        """Validation loss alone."""
        return self.compute_loss(model, self._prepare_inputs(inputs)), None, None

    def reason_to_stop(self, logs: Mapping[str, float]) -> str | None:
        """The endpoint error has grown, or critic and witness part (unless the critic trains along, whose margin means little)."""
        first = next((entry for entry in self.state.log_history if "endpoint_l1" in entry), None)
        if first is None or "endpoint_l1" not in logs:
            return None
        stage, growth = self.stage, logs["endpoint_l1"] / max(first["endpoint_l1"], 1e-9)
        if stage.endpoint_limit is not None and growth > stage.endpoint_limit:
            return f"endpoint error {logs['endpoint_l1']:.4f} is {growth:.2f} times its first, over --endpoint_limit {stage.endpoint_limit}"
        if stage.witness_limit is None or "witness_margin" not in logs or self.critic_optimizer is not None:
            return None
        fall = {name: first[name] - logs[name] for name in ("critic_margin", "witness_margin")}
        apart = fall["critic_margin"] - fall["witness_margin"]
        if apart <= stage.witness_limit:
            return None
        return (
            f"the critic's margin has fallen by {fall['critic_margin']:.2f}, the witness's by {fall['witness_margin']:.2f}: "
            f"{apart:.2f} apart, over --witness_limit {stage.witness_limit}"
        )

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        super()._save_optimizer_and_scheduler(output_dir)
        if self.critic_optimizer is not None and self.args.should_save:
            state = self.critics.discriminator.state_dict()
            save_file({name: value.contiguous() for name, value in state.items()}, Path(output_dir) / CRITIC)
            torch.save(self.critic_optimizer.state_dict(), Path(output_dir) / CRITIC_OPTIMIZER)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None:
            self._load_critic(Path(checkpoint))

    def _load_critic(self, checkpoint: Path) -> None:
        if self.critic_optimizer is None:
            return
        if not (checkpoint / CRITIC_OPTIMIZER).is_file():
            raise RefinementError(
                f"{checkpoint} has no {CRITIC_OPTIMIZER}: its run began with a frozen discriminator. Go on without "
                "--discriminator_trainable, or start afresh"
            )
        self.critics.discriminator.load_state_dict(load_file(checkpoint / CRITIC))
        state = torch.load(checkpoint / CRITIC_OPTIMIZER, map_location="cpu", weights_only=True)
        self.critic_optimizer.load_state_dict(state)

    def restore(self, checkpoint: str) -> None:
        """Weights, also the discriminator's, and log of a checkpoint after which nothing is left to train."""
        super().restore(checkpoint)
        self._load_critic(Path(checkpoint))
