"""Launches: what is chosen where there is no accelerator, and what is refused; how a run was spread, and how it may go on."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from trl import SFTConfig

from alm.data.example import DataError
from alm.training import trl_parts
from alm.training.sft import SequenceConfig
from alm.training.spread import SPREAD, Spread, require_same_spread, write_spread

NO_ACCELERATOR = pytest.mark.skipif(torch.accelerator.is_available(), reason="for machines without an accelerator")


@pytest.fixture(autouse=True)
def launcher(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """As if nothing had launched this process."""
    for name in [name for name in os.environ if name.startswith("ACCELERATE_")] + ["LOCAL_RANK", "WORLD_SIZE"]:
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def config(folder: Path, **options: Any) -> SFTConfig:
    return SequenceConfig(str(folder), packing=True, max_length=32, report_to="none", **options)


@NO_ACCELERATOR
def test_without_an_accelerator_the_cpu_is_chosen(tmp_path: Path) -> None:
    made = config(tmp_path)
    assert made.use_cpu and made.world_size == 1 and not made.bf16


def test_what_cannot_be_reported_to_is_refused_at_once(launcher: pytest.MonkeyPatch, tmp_path: Path) -> None:
    launcher.setattr(trl_parts, "get_available_reporting_integrations", lambda: ["tensorboard"])
    assert SequenceConfig(str(tmp_path), max_length=32, packing=True, report_to="tensorboard").report_to == [
        "tensorboard"
    ]
    for name in ("wandb", "tensorbord"):
        with pytest.raises(ValueError, match=f"--report_to {name}: not installed.*installed here: tensorboard"):
            SequenceConfig(str(tmp_path), max_length=32, packing=True, report_to=name)


@NO_ACCELERATOR
def test_deepspeed_on_a_cpu_is_float32(launcher: pytest.MonkeyPatch, tmp_path: Path) -> None:
    launcher.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    launcher.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    with pytest.raises(ValueError, match="DeepSpeed on a CPU trains in float32"):
        config(tmp_path)


@pytest.mark.parametrize(
    ("told", "options", "message"),
    [
        ({"ACCELERATE_USE_DEEPSPEED": "true"}, {"use_cpu": True}, "--use_cpu would leave DeepSpeed out"),
        ({"ACCELERATE_USE_FSDP": "true"}, {"use_cpu": True}, "FSDP on a CPU"),
        ({}, {"use_cpu": True, "fsdp": True}, "FSDP on a CPU"),
        ({}, {"deepspeed": "zero3.json"}, "give DeepSpeed to the launcher"),
        (
            {"ACCELERATE_MIXED_PRECISION": "bf16"},
            {"bf16": False},
            "mixed_precision is bf16, and --bf16 and --fp16 are off",
        ),
    ],
)
def test_launches_that_are_not_what_they_say_are_refused(
    launcher: pytest.MonkeyPatch, tmp_path: Path, told: dict[str, str], options: dict[str, Any], message: str
) -> None:
    for name, value in told.items():
        launcher.setenv(name, value)
    with pytest.raises(ValueError, match=message):
        config(tmp_path, **options)


def test_processes_that_do_not_see_each_other_are_refused(launcher: pytest.MonkeyPatch, tmp_path: Path) -> None:
    made = config(tmp_path)
    launcher.setenv("LOCAL_RANK", "0")
    launcher.setenv("WORLD_SIZE", "2")
    from alm.training.processes import require_all_processes

    with pytest.raises(ValueError, match="2 processes were started, but this one sees 1"):
        require_all_processes(made)


def test_the_launcher_s_precision_is_the_recipe_s(launcher: pytest.MonkeyPatch, tmp_path: Path) -> None:
    launcher.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    assert config(tmp_path).bf16


def test_a_run_goes_on_as_it_was_spread(tmp_path: Path) -> None:
    made = config(tmp_path, per_device_train_batch_size=2, gradient_accumulation_steps=4)
    require_same_spread(None, made, draws=True)
    with pytest.raises(DataError, match=f"has no {SPREAD}"):
        require_same_spread(str(tmp_path), made, draws=False)
    write_spread(made, tmp_path)
    assert Spread.of(made) == (8, 1, "none")
    require_same_spread(str(tmp_path), made, draws=True)
    other = config(tmp_path, per_device_train_batch_size=8, gradient_accumulation_steps=1)
    require_same_spread(str(tmp_path), other, draws=True)  # as many rows a step

    def stored(rows: int, processes: int, sharding: str) -> str:
        (tmp_path / SPREAD).write_text(json.dumps({"rows": rows, "processes": processes, "sharding": sharding}))
        return str(tmp_path)

    require_same_spread(stored(8, 2, "none"), made, draws=False)
    for wrong, draws in (((8, 2, "none"), True), ((16, 2, "none"), False), ((8, 1, "zero2"), False)):
        with pytest.raises(DataError, match=f"{wrong[0]} rows a step on {wrong[1]} processes.* has 8 rows a step on 1"):
            require_same_spread(stored(*wrong), made, draws)
