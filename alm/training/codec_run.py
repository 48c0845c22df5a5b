"""What the codec's recipes share: a trainer's configuration that fits the device, whole checkpoints, and plans for another machine."""

import hashlib
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from transformers import Trainer, TrainingArguments

from alm.arguments import ConfigFileError, read_numbers
from alm.training import run
from alm.training.arguments import MachineArguments
from alm.training.layout import WORDS, Layout
from alm.training.plan import Plan, gpu_line
from alm.training.stopping import StopAtSignal
from alm.training.training_log import JsonLinesLog
from alm.training.trl_parts import fit_device
from alm.training.whole_checkpoints import WholeCheckpoints

DATA = "data.json"
"""Digest of the data that a run began with, and must go on with; beside it the flags and weights that it must keep, too."""


@dataclass
class CodecTrainingArguments(TrainingArguments):
    """TrainingArguments that also run where there is no accelerator; every process has all weights."""

    def __post_init__(self) -> None:
        own: Any = self
        if own.gradient_checkpointing:
            raise ValueError(
                "--gradient_checkpointing: the codec's models have none; a smaller --per_device_train_batch_size with the same "
                "--effective_batch takes less memory"
            )
        if (
            own.max_steps < 1 or own.num_train_epochs != 3.0
        ):  # Transformers' default; DEFAULTS always hold --max_steps, which goes before
            raise ValueError(
                f"--num_train_epochs {own.num_train_epochs:g}, --max_steps {own.max_steps}: the codec's recipes count steps (of the rate, "
                "of restarts, of ramps); give --max_steps alone, 1 or more. --dry_run tells how many epochs they are"
            )
        fit_device(own, super().__post_init__)
        _require_whole(Layout.of(own))


def settle_layout(args: MachineArguments, training: Any) -> Layout:
    """As `alm.training.run.settle_layout`. Raises `ConfigFileError` where the weights are sharded, too."""
    layout = run.settle_layout(args, training)
    try:
        _require_whole(layout)
    except ValueError as error:
        raise ConfigFileError(f"--machine {args.machine}: {error}") from error
    return layout


def shape_of(config: Any, path: str) -> Any:
    """A configuration of this class, of a folder or Hub id or of a YAML file of its numbers: for a plan, which needs no weights."""
    return config(**read_numbers(path)) if path.endswith((".yaml", ".yml")) else config.from_pretrained(path)


def look(read: Sequence[str], memory: Any, args: Any, training: Any, layout: Layout, clips: int | None = None) -> None:
    """Print what --dry_run asks for: what was `read` and is trained, steps, and the memory of one device (`codec.live_tensors.StepBytes`).

    Raises `ConfigFileError` where the GPU is too small.
    """
    if layout.processes > 1:
        memory = memory._replace(gradients=2 * memory.gradients)  # DDP's buckets
    kind = "bfloat16, weights in float32," if layout.half_precision else "float32"
    lines = [
        *read,
        *step_lines(args, training, layout, clips),
        f"precision        {kind} on {layout}",
        f"memory           about {memory} per device",
        *gpu_line(memory, args.gpu_memory, indent=17),
    ]
    print(*lines, sep="\n")
    Plan("\n".join(lines), memory).require_fit(args.gpu_memory)


def require_same_begin(
    args: Any, training: Any, checkpoint: str | None, digest: str, flags: Sequence[str], **found: Any
) -> None:
    """Keep what a run begins with: the data's digest, the values of these `flags` of `args`, and what was `found` behind others.

    Raises `DataError`, on all processes, where it would go on from `checkpoint` with something else.
    """
    kept = {name: getattr(args, name) for name in flags} | found
    write = training.distributed_state.is_main_process
    run.require_same_data(Path(args.output_dir) / DATA, digest, checkpoint is not None, write, **kept)


def data_digest(sources: Iterable[Any]) -> str:
    """Of clips by file name and caption (rows of data sets by number).

    Not the folders: a batch system may unpack the same clips somewhere else for each job.
    """
    total = hashlib.sha256()
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


def finish(trainer: Any, recipe: str, args: Any, parts: Mapping[str, Any]) -> None:
    """Say which clips could not be read and why the run ended early, if it did; write the manifest, `parts` of it the recipe's own."""
    output, crops = Path(args.output_dir), trainer.train_dataset
    unreadable = list(crops.unreadable.values())
    print(*(f"unreadable, replaced: {reason}" for reason in unreadable), sep="\n", end="\n" if unreadable else "")
    if ended := trainer.early_end():
        print(ended)
    common = {
        "data": json.loads((output / DATA).read_text(encoding="utf-8")),
        "clips": len(crops),
        "unreadable": unreadable,
        "arguments": asdict(args),
        "trainer": trainer.args.to_dict(),
    }
    run.write_manifest(output, {"recipe": recipe, **parts, **common}, sys.argv)


def resumable(trainer: type[Trainer]) -> Any:
    """The class of a codec's trainer (`codec.parts_trainer`) whose checkpoints are there wholly or not at all, one of them where SIGTERM
    stops the run, and whose log is written as it trains.
    """
    return type(trainer.__name__, (_Resumable, trainer), {})


class _Resumable(WholeCheckpoints):
    def __init__(self, *args: Any, callbacks: Sequence[Any], **kwargs: Any) -> None:
        log = JsonLinesLog(kwargs["args"].output_dir)
        super().__init__(*args, **kwargs | {"callbacks": [*callbacks, log, StopAtSignal()]})

    def restore(self, checkpoint: str) -> None:
        """As the trainer's; the log loses what was not written to its end, as it does where training goes on."""
        trainer: Any = super()
        trainer.restore(checkpoint)
        own: Any = self
        run.mend_log(Path(own.args.output_dir), checkpoint, own.args.distributed_state)

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
