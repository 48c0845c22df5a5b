"""The vocoder on Transformers' Trainer, alone or with discriminators: two optimizers that take turns, exact under resume.

With discriminators optimizers, schedulers and the order of steps are those of `VocosExp` of https://github.com/gemelo-ai/vocos.
"""

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import get_scheduler

from codec.parts_trainer import PartsTrainer
from codec.vocoder_adversarial import AdversarialVocoderTraining

STATE = "discriminators.pt"
"""File of a checkpoint: state of the discriminators' optimizer and scheduler (their weights are in the checkpoint's model)."""


class AdversarialSetupError(ValueError):
    """Trainer settings under which two optimisers cannot take turns."""


class VocoderTrainer(PartsTrainer):
    """Trainer of `VocoderTraining` that logs the parts of its loss."""

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Tensor], return_outputs: bool = False, **_: Any
    ) -> Tensor | tuple[Tensor, Any]:
        """The module's loss."""
        losses = model(**inputs)
        self.count({name: losses[name] for name in ("mel_loss", "spectral_loss")})
        return (losses["loss"], losses) if return_outputs else losses["loss"]


class AdversarialTrainer(PartsTrainer):
    """Trainer of `AdversarialVocoderTraining`: in each step the discriminators learn first, then the vocoder, as published.

    The vocoder's optimizer and scheduler are the Trainer's own; the discriminators' have the same settings, and their states lie in each
    checkpoint as `discriminators.pt`. During the first `pretrain_steps` steps the vocoder learns from the mel loss alone and the
    discriminators wait. Raises `AdversarialSetupError` on settings under which the turns would not be what they are said to be.
    """

    def __init__(self, *args: Any, pretrain_steps: int = 0, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.pretrain_steps = pretrain_steps
        settings = self.args
        if settings.gradient_accumulation_steps > 1:
            raise AdversarialSetupError(
                f"--gradient_accumulation_steps {settings.gradient_accumulation_steps} with --adversarial: the vocoder would be judged "
                "by discriminators that have not had their step yet; raise --per_device_train_batch_size instead"
            )
        if settings.fp16 or settings.deepspeed or settings.fsdp:
            raise AdversarialSetupError(
                "--fp16, --deepspeed and --fsdp scale or split one optimizer only; with --adversarial use --bf16 or float32, on one "
                "device or several (DDP)"
            )

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        """Weight decay for all parameters, as published."""
        return [name for name, _ in model.named_parameters()]

    def create_optimizer(self, *_: Any, **__: Any) -> torch.optim.Optimizer:
        """The vocoder's optimizer (Trainer's own) and the discriminators'."""
        task: AdversarialVocoderTraining = self.accelerator.unwrap_model(self.model)
        settings = self.args
        self.judges_optimizer = torch.optim.AdamW(
            task.judges.parameters(),
            lr=settings.learning_rate,
            betas=(settings.adam_beta1, settings.adam_beta2),
            eps=settings.adam_epsilon,
            weight_decay=settings.weight_decay,
        )
        optimizer: torch.optim.Optimizer = super().create_optimizer(task.vocoder)
        return optimizer

    def create_scheduler(self, num_training_steps: int, *args: Any, **kwargs: Any) -> Any:
        """Both schedulers, of one kind."""
        self.judges_scheduler = get_scheduler(
            self.args.lr_scheduler_type,
            optimizer=self.judges_optimizer,
            num_warmup_steps=self.args.get_warmup_steps(num_training_steps),
            num_training_steps=num_training_steps,
            scheduler_specific_kwargs=self.args.lr_scheduler_kwargs,
        )
        return super().create_scheduler(num_training_steps, *args, **kwargs)

    def training_step(self, model: nn.Module, inputs: dict[str, Tensor], *args: Any, **kwargs: Any) -> Tensor:
        """The discriminators' step, and the vocoder's forward and backward pass against them."""
        model.train()
        task: AdversarialVocoderTraining = self.accelerator.unwrap_model(model)
        waveform, heard, _ = task.lesson(**self._prepare_inputs(inputs))
        lesson = {"waveform": waveform, "heard": heard}
        self._judged = self.state.global_step >= self.pretrain_steps
        if self._judged:
            loss = model(**lesson, turn="judges")["loss"]
            self.accelerator.backward(loss)
            self.judges_optimizer.step()
            self.judges_optimizer.zero_grad()
            self.count({"discriminator_loss": loss.detach()})
        with (
            warnings.catch_warnings()
        ):  # while the discriminators wait, their rate goes on without steps: meant so, as published
            warnings.simplefilter("ignore")
            self.judges_scheduler.step()
        return super().training_step(model, lesson, *args, **kwargs)

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Tensor], return_outputs: bool = False, **_: Any
    ) -> Tensor | tuple[Tensor, Any]:
        """The vocoder's loss; its parts are summed for the log."""
        losses = model(**inputs, turn="vocoder", judged=self._judged)
        self.count({name: value for name, value in losses.items() if name != "loss"})
        return (losses["loss"], losses) if return_outputs else losses["loss"]

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        super()._save_optimizer_and_scheduler(output_dir)
        if self.args.should_save:
            state = {"optimizer": self.judges_optimizer.state_dict(), "scheduler": self.judges_scheduler.state_dict()}
            torch.save(state, Path(output_dir) / STATE)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, *args: Any, **kwargs: Any) -> None:
        if not (Path(resume_from_checkpoint) / STATE).is_file():
            raise AdversarialSetupError(
                f"{resume_from_checkpoint} has no {STATE}: its run began without discriminators. Give another --output_dir, and "
                "--start_from the vocoder of that run"
            )
        super()._load_from_checkpoint(resume_from_checkpoint, *args, **kwargs)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None:
            state = torch.load(Path(checkpoint) / STATE, map_location="cpu", weights_only=True)
            self.judges_optimizer.load_state_dict(state["optimizer"])
            self.judges_scheduler.load_state_dict(state["scheduler"])
