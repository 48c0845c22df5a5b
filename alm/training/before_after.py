"""What a run measures of its model when training begins and when it has ended, and keeps over interruptions."""

import json
from pathlib import Path
from typing import Any

from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from alm.data.tokens_files import write_atomic


class BeforeAndAfter(TrainerCallback):
    """Measures a trainer's model before the first step and after the last, from within training, where DeepSpeed's engine is there.

    `found` goes into the manifest: `before` and `after`, what `measured` gives, None where nothing was measured. It is kept in `record`
    too, before the last step is saved, so that a run that goes on has what was measured when it began.
    """

    def __init__(self, trainer: Trainer, record: Path, going_on: bool) -> None:
        self.trainer, self.record = trainer, record
        self.found: dict[str, Any] = {"before": None, "after": None}
        if going_on and record.is_file():
            self.found = json.loads(record.read_text(encoding="utf-8"))

    def measured(self) -> dict[str, float]:
        """What the model is worth now; called by all processes together."""
        raise NotImplementedError

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Measure the first weights; nothing where a run goes on."""
        if state.global_step == 0:
            self._measure("before", control)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Measure the last weights."""
        if state.global_step == state.max_steps:
            self._measure("after", control)

    def _measure(self, when: str, control: TrainerControl) -> None:
        due = (
            control.should_log,
            control.should_evaluate,
        )  # of this step; a log and an evaluation in between take them away
        self.found[when] = self.measured()
        control.should_log, control.should_evaluate = due
        if self.trainer.is_world_process_zero():
            write_atomic(self.record, (json.dumps(self.found) + "\n").encode())
