"""Transformers' Trainer with the parts of a loss in its log, and with reasons to stop that survive a restart."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import SequentialSampler
from transformers import Trainer, TrainerState

from codec.ema import averages

STATE = "trainer_state.json"
STOPPED = "stopped"
"""Key of the log's entry that says why a run ended before its last step."""


def stopped(checkpoint: str | None) -> str | None:
    """Why the run whose checkpoint this is has ended early; None while it has not."""
    if checkpoint is None:
        return None
    history = json.loads((Path(checkpoint) / STATE).read_text(encoding="utf-8"))["log_history"]
    reasons = [str(entry[STOPPED]) for entry in history if STOPPED in entry]
    return reasons[-1] if reasons else None


class PartsTrainer(Trainer):
    """Trainer that logs means, over batches and processes, of the parts of its loss, and may end a run for a reason.

    A run that ends so writes a checkpoint with the reason in its log: one killed afterwards does not train on. `part_sums` and
    `take_part_sums` let whoever writes checkpoints carry the next entry's means over a resume.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}

    def count(self, parts: Mapping[str, Tensor]) -> None:
        """Add the parts of one batch's loss, each `()`; the names are the same on all processes."""
        for name, value in parts.items():
            self._sums[name] = self._sums.get(name, torch.zeros(())) + value.detach().float().cpu()
            self._counts[name] = self._counts.get(name, 0) + 1

    def part_sums(self) -> dict[str, Any]:
        """What this process has summed since the last entry of the log, for JSON: `parts`, name → sum and number of batches."""
        return {"parts": {name: [float(total), self._counts[name]] for name, total in self._sums.items()}}

    def take_part_sums(self, sums: Mapping[str, Any]) -> None:
        """Go on from `part_sums`."""
        self._sums = {name: torch.tensor(total) for name, (total, _) in sums["parts"].items()}
        self._counts = {name: count for name, (_, count) in sums["parts"].items()}

    def reason_to_stop(self, logs: Mapping[str, float]) -> str | None:
        """Called with each log entry, the same on all processes."""
        return None

    def log(self, logs: dict[str, Any], *args: Any, **kwargs: Any) -> None:
        """Add the parts' means to a training log; end the run where there is a reason."""
        if "loss" in logs and self._sums:
            means = torch.stack([total / self._counts[name] for name, total in self._sums.items()]).to(self.args.device)
            means = self.accelerator.reduce(means, "mean")  # guards must decide alike on all processes
            logs |= {name: round(float(mean), 5) for name, mean in zip(self._sums, means, strict=True)}
            self._sums, self._counts = {}, {}
        reason = self.reason_to_stop(logs)
        if reason is not None:
            logs[STOPPED] = reason
            self.control.should_training_stop = self.control.should_save = True
        super().log(logs, *args, **kwargs)

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        """Trainer's random order, but for clips that have one of their own (`codec.mixing`)."""
        dataset = self.train_dataset if train_dataset is None else train_dataset
        if getattr(getattr(dataset, "clips", None), "in_order", False):
            return SequentialSampler(dataset)
        return super()._get_train_sampler(train_dataset)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        super()._save_optimizer_and_scheduler(output_dir)
        for average in averages(self) if self.args.should_save else ():
            average.save(output_dir)

    def early_end(self) -> str | None:
        """At which step the run ended before its last, and why; None where it did not."""
        ends = [
            f"ended at step {entry['step']:,}: {entry[STOPPED]}" for entry in self.state.log_history if STOPPED in entry
        ]
        return ends[-1] if ends else None

    def restore(self, checkpoint: str) -> None:
        """Weights and log of a checkpoint after which nothing is left to train."""
        self._load_from_checkpoint(checkpoint)
        self.state = TrainerState.load_from_json(str(Path(checkpoint) / STATE))
