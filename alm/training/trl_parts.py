"""What our trainers share, whichever of TRL's they are: defaults that run without an accelerator, and checkpoints that are complete."""

import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import is_peft_model

from alm.adapters import write_processor_file
from alm.processing import AudioLanguageProcessor


def fit_device(config: Any, finish: Callable[[], None]) -> None:
    """Set `bf16` and pinned memory of a TRL configuration to what this device has, then `finish` it by TRL's own `__post_init__`."""
    accelerated = torch.accelerator.is_available() and not config.use_cpu
    if config.bf16 is None and not config.fp16:
        # TRL's default is True; a CPU without matrix units for it is eight times slower with it (measured), not faster. What
        # `accelerate launch` was told holds: the model would compute in it all the same, and DeepSpeed refuses two answers
        told = os.environ.get("ACCELERATE_MIXED_PRECISION") == "bf16"
        config.bf16 = told or (accelerated and torch.cuda.is_available() and torch.cuda.is_bf16_supported())
    config.dataloader_pin_memory = config.dataloader_pin_memory and accelerated
    with warnings.catch_warnings():
        # TRL sets the old name itself
        warnings.filterwarnings("ignore", message=".*gradient_checkpointing. is deprecated", category=FutureWarning)
        finish()


class CompleteCheckpoints:
    """Beside a trainer of TRL: what it saves is a whole checkpoint. The trainer sets `processor`."""

    processor: AudioLanguageProcessor

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Write a complete checkpoint: weights, tokenizer, template, contract and codec; of LoRA the adapter and the contract."""
        trainer: Any = self
        super().save_model(output_dir, _internal_call)  # type: ignore[misc]
        if not trainer.args.should_save:
            return
        folder = Path(output_dir or trainer.args.output_dir)
        if is_peft_model(trainer.model):
            write_processor_file(self.processor, folder)
            (folder / "README.md").unlink(missing_ok=True)  # peft's empty card
        else:
            self.processor.save_pretrained(folder)

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """None: a card without evaluation would only mislead."""
