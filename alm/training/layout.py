"""Over which processes a run is spread, kept in its checkpoints: a run goes on as it would have without the interruption, or not at all."""

import json
from pathlib import Path
from typing import Any, NamedTuple

from alm.data.example import DataError
from alm.training.processes import uses_fsdp

LAYOUT = "layout.json"
"""In a checkpoint: the `Layout` of the run that wrote it."""


class Layout(NamedTuple):
    """What decides which rows are a step's, and whose optimizer state a file holds."""

    rows: int
    """Rows (or crops, pairs, prompts) of a step over all processes."""
    processes: int
    shards: str | None
    """`ZeRO-1` to `ZeRO-3` or `FSDP`; None where each process keeps everything."""

    @classmethod
    def of(cls, config: Any) -> "Layout":
        """Of a finished trainer's configuration."""
        stage = config.deepspeed_plugin.zero_stage if config.deepspeed_plugin else 0
        shards = f"ZeRO-{stage}" if stage else "FSDP" if uses_fsdp(config) else None
        rows = config.per_device_train_batch_size * config.gradient_accumulation_steps * config.world_size
        return cls(rows, config.world_size, shards)

    def __str__(self) -> str:
        return f"{self.rows} rows a step on {self.processes} × {self.shards or 'whole optimizer'}"


def write_layout(config: Any, checkpoint: Path) -> None:
    """Say in a checkpoint what it was trained on."""
    (checkpoint / LAYOUT).write_text(json.dumps(Layout.of(config)._asdict()) + "\n", encoding="utf-8")


def require_same_layout(checkpoint: str | None, config: Any, draws: bool) -> None:
    """Raise `DataError` where a run would go on otherwise than it would have without the interruption.

    Rows are taken by their position, so that another number of processes has the same steps where a step has as many rows; but shards
    of an optimizer belong to their processes, and so does what a process `draws` at random (dropout, sampled turns).
    """
    if checkpoint is None:
        return
    file, ours = Path(checkpoint) / LAYOUT, Layout.of(config)
    if not file.is_file():
        raise DataError(
            f"{checkpoint} has no {LAYOUT}: no recipe of this version wrote it. Give --overwrite_output to train anew"
        )
    known = Layout(**json.loads(file.read_text(encoding="utf-8")))
    free = known.shards is None and not draws
    if known == ours or (free and known._replace(processes=ours.processes) == ours):
        return
    raise DataError(
        f"{checkpoint} was trained with {known}, this command has {ours}. Start it as it was"
        + (" (only the number of processes may change, with --effective_batch as it was)" if free else "")
        + ", or give --overwrite_output to train anew"
    )
