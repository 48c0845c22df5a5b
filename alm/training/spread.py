"""How a run was spread, kept in its checkpoints: it goes on as it would have without the interruption, or not at all."""

import json
from pathlib import Path
from typing import Any, NamedTuple

from alm.data.example import DataError
from alm.training.layout import WORDS, Layout, Sharding

SPREAD = "spread.json"
"""In a checkpoint: the `Spread` of the run that wrote it."""


class Spread(NamedTuple):
    """What decides which rows (or pairs, or turns) are a step's, and whose optimizer state a file holds."""

    rows: int
    """Rows of a step over all processes."""
    processes: int
    sharding: Sharding

    @classmethod
    def of(cls, config: Any) -> "Spread":
        """Of a finished trainer's configuration."""
        rows = config.per_device_train_batch_size * config.gradient_accumulation_steps * config.world_size
        return cls(rows, config.world_size, Layout.of(config).sharding)

    def __str__(self) -> str:
        return f"{self.rows} rows a step on {self.processes} processes, {WORDS[self.sharding]}"


def write_spread(config: Any, checkpoint: Path) -> None:
    """Say in a checkpoint how its run was spread."""
    (checkpoint / SPREAD).write_text(json.dumps(Spread.of(config)._asdict()) + "\n", encoding="utf-8")


def read_spread(checkpoint: Path) -> Spread:
    """How the run was spread that wrote a checkpoint."""
    return Spread(**json.loads((checkpoint / SPREAD).read_text(encoding="utf-8")))


def require_same_spread(checkpoint: str | None, config: Any, draws: bool) -> None:
    """Raise `DataError` where a run would go on otherwise than it would have without the interruption.

    Rows are taken by their position, so that another number of processes has the same steps where a step has as many rows; but shards
    of an optimizer belong to their processes, and so does what a process `draws` at random (dropout, sampled turns).
    """
    if checkpoint is None:
        return
    file, ours = Path(checkpoint) / SPREAD, Spread.of(config)
    if not file.is_file():
        raise DataError(
            f"{checkpoint} has no {SPREAD}: no recipe of this version wrote it. Give --overwrite_output to train anew"
        )
    known = read_spread(file.parent)
    free = known.sharding == "none" and not draws
    if known == ours or (free and known._replace(processes=ours.processes) == ours):
        return
    raise DataError(
        f"{checkpoint} was trained with {known}, this command has {ours}. Start it as it was"
        + (" (only the number of processes may change, with --effective_batch as it was)" if free else "")
        + ", or give --overwrite_output to train anew"
    )
