"""Over which devices a run is spread and how: read from a configuration of `accelerate launch`, or from the process that it started."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from alm.arguments import ConfigFileError

Sharding = Literal["none", "zero2", "zero3", "fsdp2"]
WORDS: dict[Sharding, str] = {"none": "weights whole", "zero2": "ZeRO-2", "zero3": "ZeRO-3", "fsdp2": "FSDP2"}
DONE = ("NO", "MULTI_GPU", "DEEPSPEED", "FSDP")


@dataclass(frozen=True)
class Layout:
    """Processes with one device each.

    `offloaded`: the optimizer and its master weights are in the host's memory. `half_precision`: bfloat16 or float16 computes; DeepSpeed
    then holds half-precision weights beside its float32 masters, elsewhere float32 weights are cast where they are used.
    """

    processes: int = 1
    sharding: Sharding = "none"
    half_precision: bool = False
    offloaded: bool = False
    gpu: bool = True

    @property
    def deepspeed(self) -> bool:
        """Whether DeepSpeed runs the step."""
        return self.sharding in ("zero2", "zero3")

    @property
    def whole_weights(self) -> bool:
        """Whether each process has all weights, as LoRA on rows of a table needs."""
        return self.sharding in ("none", "zero2")

    @classmethod
    def of(cls, training: Any) -> "Layout":
        """The layout of this very process, from the trainer's arguments and what `accelerate launch` told it."""
        told = os.environ
        gpu = training.device.type != "cpu"
        sharding: Sharding = "none"
        if told.get("ACCELERATE_USE_DEEPSPEED") == "true":
            sharding = _zero_stage(told.get("ACCELERATE_DEEPSPEED_ZERO_STAGE", "2"), "this launch")
        elif told.get("ACCELERATE_USE_FSDP") == "true" and gpu:  # on a CPU accelerate runs plain DDP
            sharding = _fsdp(told.get("FSDP_VERSION", "1"), "this launch")
        return cls(
            processes=training.world_size,
            sharding=sharding,
            half_precision=training.mixed_precision in ("bf16", "fp16"),  # of the flags, or of the launch
            offloaded=told.get("ACCELERATE_DEEPSPEED_OFFLOAD_OPTIMIZER_DEVICE", "none") != "none",
            gpu=gpu,
        )

    @classmethod
    def read(cls, path: str | Path, half_precision: bool) -> "Layout":
        """From a file for `accelerate launch --config_file`; `half_precision`: whether the recipe's own flags ask for it, too.

        Raises `ConfigFileError` for a file that is none, and for a layout that is not known here.
        """
        try:
            told = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
            kind, processes = str(told["distributed_type"]), int(told["num_processes"])
        except (OSError, yaml.YAMLError, TypeError, KeyError, ValueError) as error:
            raise ConfigFileError(f"--machine {path} is no configuration of `accelerate launch`: {error!r}") from error
        if kind not in DONE:
            raise ConfigFileError(
                f"--machine {path}: distributed_type {kind}; {', '.join(DONE[:-1])} and {DONE[-1]} can be planned"
            )
        zero: Mapping[str, Any] = told.get("deepspeed_config") or {}
        sharding: Sharding = "none"
        if kind == "DEEPSPEED":
            sharding = _zero_stage(str(zero.get("zero_stage")), f"--machine {path}")
        elif kind == "FSDP":
            sharding = _fsdp(str((told.get("fsdp_config") or {}).get("fsdp_version", 1)), f"--machine {path}")
        return cls(
            processes=1 if kind == "NO" else processes,
            sharding=sharding,
            half_precision=half_precision or told.get("mixed_precision") in ("bf16", "fp16"),
            offloaded=zero.get("offload_optimizer_device", "none") != "none",
            gpu=not told.get("use_cpu", False),
        )

    def __str__(self) -> str:
        device = f"{self.processes} × {'GPU' if self.gpu else 'CPU'}"
        return f"{device}, {WORDS[self.sharding]}{', optimizer in the host' if self.offloaded else ''}"


def _zero_stage(stage: str, where: str) -> Sharding:
    if stage == "2":
        return "zero2"
    if stage == "3":
        return "zero3"
    raise ConfigFileError(f"{where}: zero_stage {stage}; stages 2 and 3 can be planned")


def _fsdp(version: str, where: str) -> Sharding:
    if version == "2":
        return "fsdp2"
    raise ConfigFileError(f"{where}: fsdp_version {version}; version 2 can be planned")
