"""What is held out, measured with the first weights and kept for the run's manifest."""

import json
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from alm.data.tokens_files import write_atomic


class Before(TrainerCallback):
    """Asks for an evaluation when training begins, and keeps what it found in `record`; a run that goes on finds it there.

    The trainer's own, not one of `evaluate` before `train`: that registers the bare model with accelerate, which then leaves it as it
    is, so that processes would train apart, and DeepSpeed's stage 2 refuses it.
    """

    def __init__(self, record: Path, training: TrainingArguments, going_on: bool) -> None:
        self.record = record
        training.eval_on_start = not going_on

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        """Write what was measured before the first step."""
        if state.global_step == 0 and state.is_world_process_zero:
            write_atomic(self.record, json.dumps(metrics).encode())

    @property
    def found(self) -> dict[str, float] | None:
        """What was measured; None where nothing was kept."""
        return json.loads(self.record.read_text(encoding="utf-8")) if self.record.is_file() else None
