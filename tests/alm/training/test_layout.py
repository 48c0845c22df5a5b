"""Where a run is spread: the same from a configuration's file as from the process that accelerate starts with it."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import (
    prepare_deepspeed_cmd_env,
    prepare_multi_gpu_env,
    prepare_simple_launcher_cmd_env,
)

from alm.arguments import ConfigFileError
from alm.training.layout import Layout

MACHINES = sorted((Path(__file__).parents[3] / "recipes" / "configs" / "accelerate").glob("*.yaml"))


def told(path: Path) -> dict[str, str]:
    """The environment that `accelerate launch --config_file path` gives its processes."""
    args, *_ = _validate_launch_command(
        launch_command_parser().parse_args(["--config_file", str(path), "--main_process_ip", "127.0.0.1", "x.py"])
    )
    args.main_process_port = 0
    if args.use_deepspeed:
        args.deepspeed_fields_from_accelerate_config = ""
        return prepare_deepspeed_cmd_env(args)[1]
    return prepare_multi_gpu_env(args) if args.num_processes > 1 else prepare_simple_launcher_cmd_env(args)[1]


@pytest.mark.parametrize("path", MACHINES, ids=lambda path: path.stem)
def test_a_file_says_what_its_processes_see(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planned = Layout.read(path, half_precision=False)
    for name, value in told(path).items():
        if name.startswith(("ACCELERATE_", "FSDP_")):
            monkeypatch.setenv(name, value)
    training = SimpleNamespace(world_size=planned.processes, device=torch.device("cuda"), mixed_precision="bf16")
    assert Layout.of(training) == planned
    assert planned.half_precision and planned.offloaded == (path.stem == "offload")


def test_a_cpu_process(monkeypatch: pytest.MonkeyPatch) -> None:
    training = SimpleNamespace(world_size=2, device=torch.device("cpu"), mixed_precision="no")
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")  # accelerate runs plain DDP there
    layout = Layout.of(training)
    assert layout == Layout(processes=2, gpu=False) and str(layout) == "2 × CPU, weights whole"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"distributed_type": "DEEPSPEED", "num_processes": 8, "deepspeed_config": {"zero_stage": 1}}, "zero_stage 1"),
        ({"distributed_type": "FSDP", "num_processes": 8, "fsdp_config": {}}, "fsdp_version 1"),
        ({"distributed_type": "XLA", "num_processes": 8}, "distributed_type XLA"),
        ({"distributed_type": "NO"}, "num_processes"),
        ([1], "no configuration of `accelerate launch`"),
    ],
)
def test_other_layouts_are_refused(content: Any, message: str, tmp_path: Path) -> None:
    (tmp_path / "machine.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(ConfigFileError, match=message):
        Layout.read(tmp_path / "machine.yaml", half_precision=False)
    with pytest.raises(ConfigFileError, match="no configuration"):
        Layout.read(tmp_path / "nowhere.yaml", half_precision=False)
