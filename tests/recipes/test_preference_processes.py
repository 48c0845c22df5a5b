"""`recipes/preference.py` on two processes of one launch, under DDP and DeepSpeed: what one process trains, and goes on with.

The DeepSpeed ones run where it is installed: `make test-deepspeed`.
"""

import json
import runpy
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
launch = runpy.run_path(str(HERE / "several_runs.py"))["launch"]
preferences = runpy.run_path(str(HERE / "test_preference.py"))
MACHINES = ROOT / "recipes" / "configs" / "accelerate"
FLAGS = [
    "--max_steps",
    "4",
    "--save_steps",
    "2",
    "--save_total_limit",
    "9",
    "--logging_steps",
    "1",
    "--max_length",
    "256",
]
FLAGS += [
    "--disable_tqdm",
    "true",
    "--warmup_steps",
    "0",
    "--gradient_checkpointing",
    "false",
    "--learning_rate",
    "3e-3",
]

pytestmark = pytest.mark.slow


def arguments(method: str, workshop: Any, data: Path, output: Path, rows: int) -> list[str]:
    fixed = ["--method", method, "--model", str(workshop.model), "--tokens", str(workshop.tokens), *FLAGS]
    fixed += ["--data", str(data / f"{method}.jsonl"), "--held_out", str(data / f"{method}_held.jsonl")]
    fixed += ["--output_dir", str(output), "--per_device_train_batch_size", str(rows)]
    if method == "dpo":
        return fixed
    fixed += ["--rewards", "validity", "--beta", "0.05", "--num_generations", "4", "--max_completion_length", "8"]
    return [*fixed, "--audio", str(workshop.folder), "--per_device_eval_batch_size", "8"]


@pytest.fixture(scope="module")
def data(workshop: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pairs and questions, and others held out."""
    folder = tmp_path_factory.mktemp("preferences")
    for method, rows in (("dpo", preferences["pairs"]), ("grpo", preferences["questions"])):
        preferences["write"](folder / f"{method}.jsonl", rows(workshop, range(4)))
        preferences["write"](folder / f"{method}_held.jsonl", rows(workshop, range(4, 6)))
    return folder


def log(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "training_log.jsonl").read_text().splitlines()]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


@pytest.mark.parametrize("machine", ["eight_gpus", "zero2", "zero3"])
@pytest.mark.parametrize("method", ["dpo", "grpo"])
def test_two_processes_train_and_go_on(method: str, machine: str, workshop: Any, data: Path, tmp_path: Path) -> None:
    if machine != "eight_gpus":
        pytest.importorskip("deepspeed")
    rows = 2 if method == "dpo" else 4

    def run(name: str, checkpoint: int | None = None) -> dict[str, Any]:
        start = checkpoint and str(tmp_path / "whole" / f"checkpoint-{checkpoint}")
        output = tmp_path / name
        return {"argv": arguments(method, workshop, data, output, rows), "output": str(output), "from": start}

    runs = [run("whole"), run("middle", 2), run("end", 4)]
    launch(MACHINES / f"{machine}.yaml", ROOT / "recipes" / "preference.py", runs, tmp_path)
    whole = weights(tmp_path / "whole")
    for name in ("middle", "end"):
        found = weights(tmp_path / name)
        assert found.keys() == whole.keys() and all(torch.equal(found[key], whole[key]) for key in whole)
    measured = json.loads((tmp_path / "whole" / "manifest.json").read_text())["held_out"]
    assert all("eval_loss" in measured[when] for when in ("before", "after"))
    if method == "grpo":  # each process draws its own turns
        return
    one = tmp_path / "one"
    main = runpy.run_path(str(ROOT / "recipes" / "preference.py"))["main"]
    main([*arguments(method, workshop, data, one, 2 * rows), "--use_cpu", "true"])
    for ours, theirs in zip(log(one), log(tmp_path / "whole"), strict=True):
        for name in {"loss", "grad_norm", "eval_loss", "rewards/margins"} & ours.keys():
            assert theirs[name] == pytest.approx(ours[name], rel=1e-5, abs=1e-7), (ours["step"], name)
    for key, value in weights(one).items():
        torch.testing.assert_close(whole[key], value, atol=1e-4, rtol=0)
