"""Several processes, however they were launched: all of them seen, and whole weights where one process alone writes or answers.

DeepSpeed and FSDP come from `accelerate launch` (`recipes/configs/accelerate/`), not from the trainer's own flags: one way, the tested one.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers.integrations.deepspeed import (
    is_deepspeed_zero3_enabled,
    set_hf_deepspeed_config,
    unset_hf_deepspeed_config,
)


def choose_device(config: Any) -> None:
    """Set `use_cpu` or the backend of a trainer's configuration where there is no accelerator, before it is finished.

    Without that each of accelerate's processes takes itself for the only one there, and all train and write the same. Raises `ValueError`
    on what accelerate would not do on a CPU, and on the trainer's own flag of DeepSpeed.
    """
    if config.deepspeed:
        raise ValueError(
            "--deepspeed: give DeepSpeed to the launcher, accelerate launch --config_file recipes/configs/accelerate/zero3.yaml "
            "(or --use_deepspeed --deepspeed_config_file FILE); the trainer's flag would fix its batch before --effective_batch is settled"
        )
    if config.use_cpu and _launched_with("DEEPSPEED"):
        raise ValueError(
            "--use_cpu would leave DeepSpeed out: take it away, DeepSpeed runs on a CPU where there is no GPU"
        )
    if torch.accelerator.is_available() and not config.use_cpu:
        return
    if uses_fsdp(config):
        raise ValueError(
            "FSDP on a CPU: accelerate would run plain DDP in its place; use DeepSpeed there (recipes/configs/accelerate/zero3.yaml), or "
            "--multi_gpu without FSDP"
        )
    if _launched_with("DEEPSPEED"):
        config.ddp_backend = config.ddp_backend or "gloo"  # accelerate has no backend of its own for it
    else:
        config.use_cpu = True


def launched_precision() -> str:
    """The launcher's `--mixed_precision`: no, bf16, fp16 or fp8."""
    return os.environ.get("ACCELERATE_MIXED_PRECISION", "no")


def require_same_precision(config: Any) -> None:
    """Raise `ValueError` where the launcher would compute otherwise than the trainer's own flags say, or cannot compute so."""
    if launched_precision() != "no" and not (config.bf16 or config.fp16):
        raise ValueError(
            f"accelerate's mixed_precision is {launched_precision()}, and --bf16 and --fp16 are off: give --mixed_precision no to "
            "accelerate launch, or the flag that fits to the recipe"
        )
    if (config.bf16 or config.fp16) and _launched_with("DEEPSPEED") and not torch.accelerator.is_available():
        raise ValueError(
            "DeepSpeed on a CPU trains in float32 (Transformers takes bf16 there with --use_cpu alone, which leaves DeepSpeed out): give "
            "--mixed_precision no to accelerate launch, and no --bf16"
        )


def require_all_processes(config: Any) -> None:
    """Raise `ValueError` where a launcher started more processes than the finished configuration sees."""
    started = int(os.environ.get("WORLD_SIZE", 1)) if "LOCAL_RANK" in os.environ else config.world_size
    if started != config.world_size:
        raise ValueError(
            f"{started} processes were started, but this one sees {config.world_size}: they would train apart and write the same files. "
            "Start them with accelerate launch; on a CPU with --multi_gpu or --use_deepspeed, and --num_processes"
        )


def gather_when_saving(config: Any) -> None:
    """Let ZeRO-3 gather its shards for every checkpoint: a folder without weights is none."""
    if is_deepspeed_zero3_enabled():
        settings = config.deepspeed_plugin.deepspeed_config["zero_optimization"]
        settings["stage3_gather_16bit_weights_on_model_save"] = True


def uses_fsdp(config: Any) -> bool:
    """Whether FSDP was asked for, of the launcher or of the trainer."""
    return bool(config.fsdp) or _launched_with("FSDP")


@contextmanager
def whole_models(config: Any) -> Iterator[None]:
    """Models loaded inside are whole on every process, under ZeRO-3 too: those that one process alone uses."""
    if not is_deepspeed_zero3_enabled():
        yield
        return
    unset_hf_deepspeed_config()
    try:
        yield
    finally:
        set_hf_deepspeed_config(config.deepspeed_plugin.dschf)


def _launched_with(what: str) -> bool:
    return os.environ.get(f"ACCELERATE_USE_{what}", "false").lower() == "true"
