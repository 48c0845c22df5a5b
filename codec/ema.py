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

    def on_save(self, args: TrainingArguments, state: TrainerState, control: Any, **_: Any) -> None:
        """Write the average beside the checkpoint's weights."""
        if state.is_world_process_zero:
            folder = Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"
            save_file({name: value.contiguous() for name, value in self.average.state_dict().items()}, folder / FILE)

    @torch.no_grad()
    def copy_to(self, model: nn.Module) -> None:
        """Put the average in the place of `model`'s weights."""
        model.load_state_dict(self.average.module.state_dict())


def put_average(trainer: Trainer) -> None:
    """Put the average that `trainer` kept, if any, in the place of its model's weights."""
    for callback in trainer.callback_handler.callbacks:
        if isinstance(callback, MovingAverage):
            callback.copy_to(trainer.model)
