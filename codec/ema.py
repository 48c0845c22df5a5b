"""Moving average of the weights during training, exact under resume."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from transformers import Trainer, TrainerCallback, TrainerState, TrainingArguments

FILE = "ema.safetensors"


class MovingAverage(TrainerCallback):
    """Keeps `average ← decay · average + (1 − decay) · weights` after each optimiser step, buffers copied as they are.

    Its state lies in every checkpoint as `ema.safetensors`; a run resumed from `checkpoint` goes on with it. Raises
    `FileNotFoundError` where that checkpoint was written without one.
    """

    def __init__(self, model: nn.Module, decay: float, checkpoint: str | None = None) -> None:
        self.model = model
        self.average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay))
        if checkpoint is not None:
            path = Path(checkpoint) / FILE
            if not path.is_file():
                raise FileNotFoundError(
                    f"{path} is missing: this run began without --ema_decay. Resume it without, or start afresh"
                )
            self.average.load_state_dict(load_file(path))

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: Any, **_: Any) -> None:
        """The trainer has moved the model to its device by now."""
        self.average.to(next(self.model.parameters()).device)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: Any, **_: Any) -> None:
        """One step of the average."""
        self.average.update_parameters(self.model)
        for ours, theirs in zip(self.average.module.buffers(), self.model.buffers(), strict=True):
            ours.copy_(theirs)

    def save(self, checkpoint: Path | str) -> None:
        """Write the average beside a checkpoint's weights; `codec.parts_trainer` asks for it while the checkpoint is being written."""
        tensors = {name: value.contiguous() for name, value in self.average.state_dict().items()}
        save_file(tensors, Path(checkpoint) / FILE)

    @torch.no_grad()
    def copy_to(self, model: nn.Module) -> None:
        """Put the average in the place of `model`'s weights."""
        model.load_state_dict(self.average.module.state_dict())


def put_average(trainer: Trainer) -> None:
    """Put the average that `trainer` kept, if any, in the place of its model's weights."""
    for average in averages(trainer):
        average.copy_to(trainer.model)


def averages(trainer: Trainer) -> list[MovingAverage]:
    """Those among a trainer's callbacks: one or none."""
    return [callback for callback in trainer.callback_handler.callbacks if isinstance(callback, MovingAverage)]
