"""SIGTERM, as a batch system sends it some time before it kills a job: training ends with a checkpoint at the end of its step."""

import signal
import sys
import threading
from typing import Any

import torch
from accelerate.utils import reduce
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from alm.training.saving import checkpoint_name

STOPPED = 75
"""Exit code of a run that has saved a checkpoint and stopped when it was told to: sysexits.h's "temporary failure, try again"."""


class StopAtSignal(TrainerCallback):
    """Saves and stops at the end of the step in which any process was sent SIGTERM; the process then exits with `STOPPED`.

    Transformers' own (`enable_jit_checkpoint`) saves on each process when that one notices, amid a step too, so that processes may wait
    for each other for ever and a step be done in part.
    """

    def __init__(self) -> None:
        self._told = False
        """Whether this process was."""
        self._stopping = False
        """What all processes agree on."""
        self._before: Any = None

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Listen."""
        if threading.current_thread() is threading.main_thread():  # Python lets no other thread
            self._before = signal.signal(signal.SIGTERM, self._tell)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Save, on all processes alike, where one was told to stop."""
        told = torch.tensor(float(self._told), device=args.device)
        if float(reduce(told)):
            self._stopping = control.should_save = True

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Stop, now that the checkpoint is there."""
        control.should_training_stop = control.should_training_stop or self._stopping

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Listen no longer; leave where training has been stopped (trackers, which come before, have closed their logs)."""
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)
        if self._stopping:
            if state.is_world_process_zero:
                name = checkpoint_name(state.global_step)
                print(
                    f"stopped by SIGTERM after step {state.global_step}; {args.output_dir}/{name} is saved, and the same command, without "
                    "--overwrite_output, goes on from there",
                    file=sys.stderr,
                )
            sys.exit(STOPPED)

    def _tell(self, *_: Any) -> None:
        self._told = True
