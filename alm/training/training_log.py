"""A run's log as JSON lines, written as it trains; after an interruption it goes on as if there had been none."""

import json
import math
import os
import time
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from alm.data.tokens_files import write_atomic
from alm.training.saving import writing

TRAINING_LOG = "training_log.jsonl"


class JsonLinesLog(TrainerCallback):
    """Every log record as one line of `training_log.jsonl`, with step and seconds; a resumed run goes on behind its step."""

    def __init__(self, folder: str | Path) -> None:
        self.path = Path(folder) / TRAINING_LOG
        self.start = time.monotonic()

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Drop the lines behind the step that training starts from."""
        self.start = time.monotonic()
        if state.is_world_process_zero:
            drop_later(self.path, state.global_step)

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: Any = None, **_: Any
    ) -> None:
        """Append one record; none is the summary of a run that is not at its end."""
        summary = "train_runtime" in (logs or {})
        if state.is_world_process_zero and not (summary and state.global_step < state.max_steps):
            record = {"step": state.global_step, "seconds": round(time.monotonic() - self.start, 2), **(logs or {})}
            with writing(self.path, self.path.parent), self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
                file.flush()
                os.fsync(file.fileno())  # a checkpoint that survives a power cut must not know more than the log


def drop_later(log: Path, step: int) -> None:
    """Keep the JSON lines of a log, where there is one, up to the step that a run goes on from; none from step 0."""
    if not log.is_file():
        return
    lines = log.read_text(encoding="utf-8").splitlines(keepends=True)
    write_atomic(log, "".join(line for line in lines if step and _step_of(line) <= step).encode())


def drop_behind_summary(log: Path) -> None:
    """Keep the lines of a log up to the end of its training: for one that was over, and all measured behind it is measured again."""
    if not log.is_file():
        return
    kept: list[str] = []
    for line in log.read_text(encoding="utf-8").splitlines(keepends=True):
        if not line.endswith("}\n"):
            break
        kept.append(line)
        if "train_runtime" in json.loads(line):
            break
    write_atomic(log, "".join(kept).encode())


def _step_of(line: str) -> float:
    """The step of a line of a log; beyond any for a line that was not written to its end."""
    return float(json.loads(line)["step"]) if line.endswith("}\n") else math.inf
