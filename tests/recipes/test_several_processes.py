"""A recipe on two processes of one launch, under DDP and DeepSpeed: what one process trains, saves and goes on with, within rounding.

The DeepSpeed ones run where it is installed: `make test-deepspeed`.
"""

import json
import runpy
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from safetensors.torch import load_file

from alm.checkpoint import load_checkpoint
from alm.data.example import DataError
from alm.doctor import examine

ROOT = Path(__file__).parents[2]
launch = runpy.run_path(str(Path(__file__).with_name("several_runs.py")))["launch"]
RECIPE = ROOT / "recipes" / "sft_understanding.py"
MACHINES = ROOT / "recipes" / "configs" / "accelerate"
LAYOUTS = {"weights whole": "eight_gpus.yaml", "ZeRO-2": "zero2.yaml", "ZeRO-3": "zero3.yaml"}
ROWS = 8
FLAGS = ["--effective_batch", str(ROWS), "--max_length", "256", "--learning_rate", "5e-3", "--max_steps", "6"]
FLAGS += ["--max_grad_norm", "0.5", "--warmup_steps", "0", "--logging_steps", "1", "--disable_tqdm", "true"]
FLAGS += ["--save_steps", "2", "--save_total_limit", "9"]
LORA = ["--lora_rank", "4", "--learning_rate", "3e-2"]

pytestmark = pytest.mark.slow


class Launched(NamedTuple):
    """What one launch of two processes left."""

    layout: str
    folder: Path
    printed: str


def arguments(workshop: Any, output: Path, rows: int, *more: str) -> list[str]:
    fixed = ["--model", str(workshop.model), "--tokens", str(workshop.tokens), "--output_dir", str(output)]
    return [*fixed, *workshop.data(), *FLAGS, "--per_device_train_batch_size", str(rows), *more]


def log(folder: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / "training_log.jsonl").read_text().splitlines()]
    return [line for line in lines if "loss" in line]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def require_same_run(first: Path, second: Path, rounding: float) -> None:
    """Curves and weights of two finished folders are the same but for `rounding`."""
    for one, other in zip(log(first), log(second), strict=True):
        for name in ("loss", "grad_norm", "mean_token_accuracy", "learning_rate"):
            assert one[name] == pytest.approx(other[name], rel=rounding, abs=0), (one["step"], name)
    one_s, other_s = weights(first), weights(second)
    assert one_s.keys() == other_s.keys()
    for name, value in one_s.items():
        torch.testing.assert_close(other_s[name], value, atol=10 * rounding, rtol=0)


@pytest.fixture(scope="module")
def main() -> Any:
    return runpy.run_path(str(RECIPE))["main"]


@pytest.fixture(scope="module")
def alone(main: Any, workshop: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One process: all rows of a step at once, and one after the other; LoRA."""
    folder = tmp_path_factory.mktemp("alone")
    main(arguments(workshop, folder / "whole", ROWS))
    main(arguments(workshop, folder / "by_row", 1))
    main(arguments(workshop, folder / "lora", ROWS, *LORA))
    return folder


@pytest.fixture(scope="module", params=list(LAYOUTS), ids=lambda name: name.replace("weights whole", "DDP"))
def launched(request: Any, workshop: Any, tmp_path_factory: pytest.TempPathFactory) -> Launched:
    """Two processes of one row each: a whole run, one gone on with from its middle, one from its end, LoRA, a plan."""
    if request.param.startswith("ZeRO"):
        pytest.importorskip("deepspeed")
    folder = tmp_path_factory.mktemp("launched")

    def run(name: str, *more: str, checkpoint: int | None = None) -> dict[str, Any]:
        start = checkpoint and str(folder / "whole" / f"checkpoint-{checkpoint}")
        argv = arguments(workshop, folder / name, 1, *more)
        return {"argv": argv, "output": str(folder / name), "from": start}

    clip = f"ask={workshop.folder}/audio/0.wav|Is it loud?"
    runs = [
        run("plan", "--dry_run"),
        run("whole", "--samples", clip, "--samples_steps", "3"),
        run("middle", checkpoint=2),
        run("end", checkpoint=6),
        run("more_rows", "--effective_batch", str(2 * ROWS), checkpoint=2),
        run("lora", *LORA),
    ]
    printed = launch(MACHINES / LAYOUTS[request.param], RECIPE, runs, folder)
    return Launched(request.param, folder, printed)


def test_rows_at_once_equal_rows_one_after_the_other(alone: Path) -> None:
    require_same_run(alone / "whole", alone / "by_row", 1e-5)


def test_two_processes_train_what_one_trains(launched: Launched, alone: Path) -> None:
    # several of the obvious ways to start two processes silently start one, or two that train apart
    assert f"float32 on 2 × CPU, {launched.layout}" in launched.printed
    require_same_run(alone / "whole", launched.folder / "whole", 1e-5)


def test_they_end_as_a_complete_checkpoint(launched: Launched, alone: Path) -> None:
    for folder in (launched.folder / "whole", launched.folder / "whole" / "checkpoint-4"):
        assert not list(examine(folder))
        model, _ = load_checkpoint(folder)
        assert model.config.tie_word_embeddings
    names = {path.name for path in (launched.folder / "whole").iterdir() if not path.is_dir()}
    assert names == {path.name for path in (alone / "whole").iterdir() if not path.is_dir()}
    one, two = (json.loads((path / "whole" / "manifest.json").read_text()) for path in (alone, launched.folder))
    assert one["parameters"] == two["parameters"]


def test_samples_are_made_once_and_change_nothing(launched: Launched) -> None:
    lines = (launched.folder / "whole" / "samples" / "samples.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [3, 6]
    # "middle" and "end" had none, and must come to the same


@pytest.mark.parametrize("name", ["middle", "end"])
def test_interrupted_equals_uninterrupted(launched: Launched, name: str) -> None:
    require_same_run(launched.folder / "whole", launched.folder / name, 0)


def test_a_plan_is_printed_once(launched: Launched, alone: Path) -> None:
    assert not (launched.folder / "plan").exists()
    assert (
        launched.printed.count("model          ")
        == launched.printed.count("starting from") + launched.printed.count("going on") + 1
    )
    manifest = json.loads((alone / "whole" / "manifest.json").read_text())
    assert f"{manifest['parameters']['trained']:,} parameters: full fine-tuning" in launched.printed


def test_another_number_of_rows_a_step_is_refused(launched: Launched) -> None:
    assert f"was trained with {ROWS} rows a step" in launched.printed
    assert not (launched.folder / "more_rows" / "manifest.json").exists()


def test_another_number_of_processes(launched: Launched, main: Any, workshop: Any) -> None:
    """Exact where every process has the whole optimizer, refused where it has a shard of it."""
    whole, output = launched.folder / "whole", launched.folder / "one_process"
    shutil.copytree(whole / "checkpoint-2", output / "checkpoint-2")
    shutil.copy(whole / "training_log.jsonl", output)
    if launched.layout.startswith("ZeRO"):
        with pytest.raises(DataError, match=rf"2 processes, {launched.layout}, this command has {ROWS} rows"):
            main(arguments(workshop, output, ROWS))
        return
    main(arguments(workshop, output, ROWS))
    require_same_run(whole, output, 1e-5)


def test_lora_on_two_processes(launched: Launched, alone: Path) -> None:
    if launched.layout == "ZeRO-3":
        assert "refused: LoRA trains and merges rows of whole tables" in launched.printed
        return
    require_same_run(alone / "lora", launched.folder / "lora", 1e-5)
    assert not list(examine(launched.folder / "lora"))
