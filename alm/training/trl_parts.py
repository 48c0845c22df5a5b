"""What our trainers share, whichever of TRL's they are: defaults that run without an accelerator, and checkpoints that are complete."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import is_peft_model

from alm.adapters import write_processor_file
from alm.processing import AudioLanguageProcessor
from alm.training.processes import (
    choose_device,
    gather_when_saving,
    launched_precision,
    require_all_processes,
    require_same_precision,
)
from alm.training.spread import write_spread


def fit_device(config: Any, finish: Callable[[], None]) -> None:
    """Set device, `bf16` and pinned memory of a TRL configuration to what there is, and `finish` it by TRL's own `__post_init__`.

    Raises `ValueError` on a launch that would not train on all of its processes together (`alm.training.processes`).
    """
    choose_device(config)
    accelerated = torch.accelerator.is_available() and not config.use_cpu
    if config.bf16 is None and not config.fp16:
        # TRL's default is True; a CPU without matrix units for it is eight times slower with it (measured), not faster
        able = accelerated and torch.cuda.is_available() and torch.cuda.is_bf16_supported()
        config.bf16 = able or launched_precision() == "bf16"
    require_same_precision(config)
    config.dataloader_pin_memory = config.dataloader_pin_memory and accelerated
    with warnings.catch_warnings():
        # TRL sets the old name itself
        warnings.filterwarnings("ignore", message=".*gradient_checkpointing. is deprecated", category=FutureWarning)
        finish()
    require_all_processes(config)
    gather_when_saving(config)


class CompleteCheckpoints:
    """Beside a trainer of TRL: what it saves is a whole checkpoint. The trainer sets `processor`."""

    processor: AudioLanguageProcessor

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Write a complete checkpoint: weights, tokenizer, template, contract and codec; of LoRA the adapter and the contract."""
        trainer: Any = self
        folder = Path(output_dir or trainer.args.output_dir)
        if (
            trainer.is_deepspeed_enabled and trainer.deepspeed is None
        ):  # nothing was left to train: whole weights, no engine
            trainer._save(str(folder))
        else:
            super().save_model(output_dir, _internal_call)  # type: ignore[misc]
        if not trainer.args.should_save:
            return
        if _internal_call:  # of a checkpoint, not of the end
            write_spread(trainer.args, folder)
        if is_peft_model(trainer.model):
            write_processor_file(self.processor, folder)
            (folder / "README.md").unlink(missing_ok=True)  # peft's empty card
        else:
            self.processor.save_pretrained(folder)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        """Each matrix once: DeepSpeed hands over clones, whose ties `save_pretrained` cannot see."""
        trainer: Any = self
        if state_dict is not None:
            tied = getattr(trainer.model, "all_tied_weights_keys", {})
            state_dict = {name: value for name, value in state_dict.items() if name not in tied}
        super()._save(output_dir, state_dict)  # type: ignore[misc]

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """None: a card without evaluation would only mislead."""
