"""What our trainers share, whichever of TRL's they are: defaults that run without an accelerator, and what they save."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import is_peft_model
from transformers import TrainerState
from transformers.integrations import get_available_reporting_integrations

from alm.adapters import write_processor_file
from alm.processing import AudioLanguageProcessor
from alm.training.heap import keep_freed_memory
from alm.training.processes import (
    choose_device,
    gather_when_saving,
    launched_precision,
    require_all_processes,
    require_same_precision,
)
from alm.training.saving import STATE
from alm.training.whole_checkpoints import WholeCheckpoints


def fit_device(config: Any, finish: Callable[[], None]) -> None:
    """Set device, `bf16` and pinned memory of a TRL configuration to what there is, and `finish` it by TRL's own `__post_init__`.

    Raises `ValueError` on a launch that would not train on all of its processes together (`alm.training.processes`), and on a
    --report_to that cannot be reported to.
    """
    choose_device(config)
    accelerated = torch.accelerator.is_available() and not config.use_cpu
    if not accelerated:
        keep_freed_memory()
    if config.bf16 is None and not config.fp16:
        # TRL's default is True; a CPU without matrix units for it is eight times slower with it (measured), not faster. What
        # `accelerate launch` was told holds: the model would compute in it all the same, and DeepSpeed refuses two answers
        able = accelerated and torch.cuda.is_available() and torch.cuda.is_bf16_supported()
        config.bf16 = able or launched_precision() == "bf16"
    require_same_precision(config)
    config.dataloader_pin_memory = config.dataloader_pin_memory and accelerated
    with warnings.catch_warnings():
        # TRL sets the old name itself
        warnings.filterwarnings("ignore", message=".*gradient_checkpointing. is deprecated", category=FutureWarning)
        finish()
    require_all_processes(config)
    _require_reporters(config.report_to)
    gather_when_saving(config)


def _require_reporters(names: list[str]) -> None:
    """Raise `ValueError` where --report_to names what is not installed: the trainer would find out when all data are made."""
    found = get_available_reporting_integrations()
    unlisted = ("azure_ml", "flyte")  # known to Transformers, but not always, or never, among those found
    if missing := [name for name in names if name not in (*found, *unlisted)]:
        raise ValueError(
            f"--report_to {' '.join(missing)}: not installed, or not known to Transformers; installed here: {', '.join(found) or 'none'}. "
            "Install it (pip install tensorboard, wandb or trackio), or leave it out: training_log.jsonl is written in any case"
        )


class CompleteCheckpoints(WholeCheckpoints):
    """Beside a trainer of TRL: what it saves is a complete checkpoint, there wholly or not at all. The trainer sets `processor`."""

    processor: AudioLanguageProcessor

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Write a complete checkpoint: weights, tokenizer, template, contract and codec; of LoRA the adapter and the contract."""
        trainer: Any = self
        folder = Path(output_dir or trainer.args.output_dir)
        if trainer.is_deepspeed_enabled and trainer.deepspeed is None:
            trainer._save(str(folder))  # nothing was left to train: whole weights, no engine
        else:
            super().save_model(output_dir, _internal_call)  # type: ignore[misc]
        if not trainer.args.should_save:
            return
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

    def restore(self, checkpoint: str) -> None:
        """Weights, log and random state of a checkpoint after which nothing is left to train: what follows is measured as at its end."""
        trainer: Any = self
        trainer._load_from_checkpoint(checkpoint)
        trainer.state = TrainerState.load_from_json(str(Path(checkpoint) / STATE))
        # the main process's, which wrote it
        trainer.state.is_world_process_zero = trainer.is_world_process_zero()
        trainer.state.is_local_process_zero = trainer.is_local_process_zero()
        super(WholeCheckpoints, self)._load_rng_state(checkpoint)  # type: ignore[misc]
        trainer._total_train_tokens = (self._sums_of(Path(checkpoint)) or {}).get("tokens", 0)

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """None: a card without evaluation would only mislead."""

    def log_sums(self) -> dict[str, Any]:
        """Also TRL's own metrics and the number of tokens."""
        trainer: Any = self
        return {**super().log_sums(), "tokens": trainer._total_train_tokens, "metrics": trainer._metrics["train"]}

    def take_log_sums(self, sums: dict[str, Any]) -> None:
        """Go on from `log_sums`."""
        super().take_log_sums(sums)
        trainer: Any = self
        trainer._total_train_tokens = sums["tokens"]
        trainer._metrics["train"].update(sums["metrics"])
