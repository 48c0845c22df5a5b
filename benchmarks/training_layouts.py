"""The same recipe on one process, two under DDP, and two under DeepSpeed's ZeRO-2 and ZeRO-3: losses by step, and how far apart.

    python benchmarks/training_layouts.py --output DIR -- recipes/sft_understanding.py \\
        --config recipes/configs/tiny/sft_understanding.yaml --model runs/demo/base --tokens runs/demo/tokens \\
        --musicqa runs/demo/corpus/musicqa/FinetuneMusicQA.json --musicqa_audio runs/demo/corpus/musicqa/audios --max_steps 50

Everything behind `--` is the recipe and its flags; batch and log are set here. Without a GPU the processes are the CPU's, in float32. Needs
the extra `train`; DeepSpeed compiles an operator at its first start (a minute or two, a C++ compiler).
"""

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from alm.arguments import parse_arguments, run_main

ROOT = Path(__file__).parents[1]
LAYOUTS = {
    "one process": ("one_gpu.yaml", 1),
    "DDP × 2": ("eight_gpus.yaml", 2),
    "ZeRO-2 × 2": ("zero2.yaml", 2),
    "ZeRO-3 × 2": ("zero3.yaml", 2),
}


@dataclass
class LayoutArguments:
    output: str = field(metadata={"help": "folder of the runs, one folder each; a finished one is not run again"})
    rows: int = field(default=4, metadata={"help": "rows a step; a process takes one at a time"})
    mixed_precision: str = field(default="no", metadata={"help": "accelerate's --mixed_precision"})
    every: int = field(default=1, metadata={"help": "steps between two lines of the table"})


def main(argv: list[str] | None = None) -> None:
    argv = sys.argv[1:] if argv is None else argv
    cut = argv.index("--") if "--" in argv else len(argv)
    args = parse_arguments(LayoutArguments, argv[:cut], description=__doc__)
    curves = {name: curve(args, name, argv[cut + 1 :]) for name in LAYOUTS}
    print(table(curves, args.every))
    print(f"largest difference of two weights: {weight_distance(args):.1e}")


def curve(args: LayoutArguments, name: str, recipe: list[str]) -> dict[int, float]:
    """Loss by step of one layout, trained where it is not there yet."""
    machine, processes = LAYOUTS[name]
    output = folder(args, name)
    if not (output / "manifest.json").is_file():
        launch = ["--config_file", str(ROOT / "recipes" / "configs" / "accelerate" / machine)]
        launch += ["--num_processes", str(processes), "--num_cpu_threads_per_process", "1"]
        launch += ["--mixed_precision", args.mixed_precision, "--main_process_port", "0"]
        batch = ["--effective_batch", str(args.rows), "--per_device_train_batch_size", "1", "--logging_steps", "1"]
        command = [sys.executable, "-m", "accelerate.commands.launch", *launch, *recipe, *batch]
        # ninja, which DeepSpeed calls, is beside this Python
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        subprocess.run([*command, "--output_dir", str(output)], check=True, env={**os.environ, "PATH": path})
    lines = (output / "training_log.jsonl").read_text(encoding="utf-8").splitlines()
    return {line["step"]: line["loss"] for line in map(json.loads, lines) if "loss" in line}


def folder(args: LayoutArguments, name: str) -> Path:
    """Where a layout's run is."""
    return Path(args.output) / name.replace(" ", "_").replace("×", "x")


def table(curves: dict[str, dict[int, float]], every: int) -> str:
    """Markdown: a line per step, and the largest difference from the first curve."""
    first, *others = curves.values()
    lines = [f"| step | {' | '.join(curves)} |", "|---" * (len(curves) + 1) + "|"]
    steps = [step for step in first if step % every == 0 or step == 1]
    lines += [f"| {step} | {' | '.join(f'{losses[step]:.6f}' for losses in curves.values())} |" for step in steps]
    far = [max(abs(losses[step] - first[step]) for step in first) for losses in others]
    return "\n".join([*lines, f"| largest difference | | {' | '.join(f'{value:.1e}' for value in far)} |"])


def weight_distance(args: LayoutArguments) -> float:
    """The largest difference of one weight between the first finished folder and any other."""
    from safetensors.torch import load_file

    first, *others = (load_file(folder(args, name) / "model.safetensors") for name in LAYOUTS)
    return max(float((other[key] - value).abs().max()) for other in others for key, value in first.items())


if __name__ == "__main__":
    run_main(main)
