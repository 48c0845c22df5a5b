"""What is held out from preference training, measured before the first step and after the last."""

import json
from pathlib import Path
from typing import Any

from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from alm.data.tokens_files import write_atomic

RECORD = "held_out.json"


class HeldOutRows(TrainerCallback):
    """Lets a trainer evaluate when training begins and after its last step; from within training, where DeepSpeed's engine is there.

    `found` goes into the manifest: `before` and `after`, the trainer's metrics, None where nothing was measured. It is kept in `folder`
    too, so that a run that goes on has what was measured when it began.
    """

    def __init__(self, trainer: Trainer, folder: Path, going_on: bool) -> None:
        self.trainer, self.path = trainer, folder / RECORD
        self.found: dict[str, Any] = {"before": None, "after": None}
        if going_on and self.path.is_file():
            self.found = json.loads(self.path.read_text(encoding="utf-8"))

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Measure the first weights; nothing where a run goes on."""
        if state.global_step == 0:
            self._measure("before", control)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Measure the last weights."""
        if state.global_step == state.max_steps:
            self._measure("after", control)

    def _measure(self, when: str, control: TrainerControl) -> None:
        due, training = (control.should_log, control.should_evaluate), self.trainer.model.training
        self.found[when] = self.trainer.evaluate()
        self.trainer.model.train(
            training
        )  # TRL takes the averages of the mode that the model is in for the next entry of the log
        control.should_log, control.should_evaluate = due
        if self.trainer.is_world_process_zero():
            write_atomic(self.path, (json.dumps(self.found) + "\n").encode())
