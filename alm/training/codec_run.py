"""What the codec's recipes share: a trainer's configuration that fits the device, whole checkpoints, and plans for another machine."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from transformers import Trainer, TrainingArguments

from alm.arguments import ConfigFileError
from alm.training.arguments import MachineArguments
from alm.training.layout import WORDS, Layout
from alm.training.plan import Plan, gpu_line
from alm.training.run import settle_batch
from alm.training.stopping import StopAtSignal
from alm.training.training_log import JsonLinesLog
from alm.training.trl_parts import fit_device
from alm.training.whole_checkpoints import WholeCheckpoints


@dataclass
class CodecTrainingArguments(TrainingArguments):
    """TrainingArguments that also run where there is no accelerator; every process has all weights."""

    def __post_init__(self) -> None:
        own: Any = self
        fit_device(own, super().__post_init__)
        _require_whole(Layout.of(own))


def settle_layout(args: MachineArguments, training: Any) -> Layout:
    """The devices of --machine or of this launch; `--effective_batch` is settled on them. Raises `ConfigFileError` where it cannot be."""
    half = bool(training.bf16 or training.fp16)
    layout = Layout.read(args.machine, half) if args.machine else Layout.of(training)
    try:
        _require_whole(layout)
    except ValueError as error:
        raise ConfigFileError(f"--machine {args.machine}: {error}") from error
    settle_batch(args.effective_batch, training, layout.processes)
    return layout


def data_digest(sources: Iterable[Any], settings: Any) -> str:
    """What a run must find again when it goes on: clips by file name and caption (rows of data sets by number), and `settings`.

    Not the folders: a batch system may unpack the same clips somewhere else for each job.
    """
    total = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode())
    for clips in sources:
        listed = isinstance(clips, list)
        total.update(f"\n{len(clips)} {'listed' if listed else 'rows'}".encode())
        for clip in clips if listed else ():
            total.update(f"\n{clip.audio.name}\t{clip.caption}".encode())
    return total.hexdigest()[:16]


def step_lines(args: Any, training: Any, layout: Layout, clips: int | None) -> list[str]:
    """Batch and steps of a plan; `clips` is None where none were read."""
    parts = (training.per_device_train_batch_size, training.gradient_accumulation_steps, layout.processes)
    batch = parts[0] * parts[1] * parts[2]
    passes = f" ({training.max_steps * batch / clips:,.1f} epochs)" if clips else ""
    return [
        f"effective batch  {batch} crops of up to {args.crop_seconds:g} s "
        f"({parts[0]} a device × {parts[1]} accumulated × {parts[2]} devices)",
        f"steps            {training.max_steps:,}{passes}",
    ]


def planned(lines: Sequence[str], memory: Any, args: MachineArguments, layout: Layout) -> Plan:
    """The plan of a dry run with the memory of one device (`codec.live_tensors.StepBytes`)."""
    if layout.processes > 1:
        memory = memory._replace(gradients=2 * memory.gradients)  # DDP's buckets
    kind = "bfloat16, weights in float32," if layout.half_precision else "float32"
    words = [f"precision        {kind} on {layout}", f"memory           about {memory} per device"]
    return Plan("\n".join([*lines, *words, *gpu_line(memory, args.gpu_memory, indent=17)]), memory)


def resumable(trainer: type[Trainer]) -> Any:
    """The class of a codec's trainer (`codec.parts_trainer`) whose checkpoints are there wholly or not at all, one of them where SIGTERM
    stops the run, and whose log is written as it trains.
    """
    return type(trainer.__name__, (_Resumable, trainer), {})


class _Resumable(WholeCheckpoints):
    def __init__(self, *args: Any, callbacks: Sequence[Any], **kwargs: Any) -> None:
        log = JsonLinesLog(kwargs["args"].output_dir)
        super().__init__(*args, **kwargs | {"callbacks": [*callbacks, log, StopAtSignal()]})

    def log_sums(self) -> dict[str, Any]:
        """Also the parts of the loss."""
        trainer: Any = self
        return {**super().log_sums(), **trainer.part_sums()}

    def take_log_sums(self, sums: dict[str, Any]) -> None:
        """Go on from `log_sums`."""
        super().take_log_sums(sums)
        trainer: Any = self
        trainer.take_part_sums(sums)


def _require_whole(layout: Layout) -> None:
    if layout.sharding != "none":
        raise ValueError(
            f"{WORDS[layout.sharding]}: the codec is trained with whole weights on every device (its 406 M parameters need no sharding): "
            "start it with recipes/configs/accelerate/eight_gpus.yaml or one_gpu.yaml"
        )
