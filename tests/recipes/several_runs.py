"""Not a test: runs of a recipe one after another in the processes of one launch, which costs more than the runs.

    accelerate launch several_runs.py RECIPE RUNS.json

RUNS.json is a list of `{"argv": [...], "output": FOLDER, "from": CHECKPOINT or null}`: a checkpoint and its run's log are copied to the
output folder first, which then is as a kill behind the checkpoint leaves it. What is refused is printed.
"""

import json
import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any


def interrupt(checkpoint: Path, output: Path) -> None:
    """Make `output` an interrupted run: of its finished one only what is there before the end."""
    shutil.copytree(checkpoint, output / checkpoint.name)
    for name in ("training_log.jsonl", "data.json", "captions.model", "config.json"):
        if (checkpoint.parent / name).is_file():
            shutil.copy(checkpoint.parent / name, output)


def launch(machine: Path, recipe: Path, runs: list[dict[str, Any]], folder: Path) -> str:
    """What two processes on a CPU print, launched with this configuration of accelerate to do the `runs` of a recipe."""
    (folder / "runs.json").write_text(json.dumps(runs))
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(machine)]
    command += ["--num_processes", "2", "--mixed_precision", "no", "--main_process_port", "0"]
    command += [__file__, str(recipe), str(folder / "runs.json")]
    # DeepSpeed calls ninja, which lies beside this Python
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PATH": path}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout[-3000:]
    return done.stdout


def main() -> None:
    recipe = runpy.run_path(sys.argv[1])["main"]
    for run in json.loads(Path(sys.argv[2]).read_text(encoding="utf-8")):
        print(f"run {run['argv']}", flush=True)
        if run["from"] and os.environ["RANK"] == "0":  # the others wait where the run begins
            interrupt(Path(run["from"]), Path(run["output"]))
        try:
            recipe(run["argv"])
        except ValueError as error:
            print(f"refused: {error}", flush=True)


if __name__ == "__main__":
    main()
