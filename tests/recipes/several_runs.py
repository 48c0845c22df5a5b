"""Not a test: runs of a recipe one after another in the processes of one launch, which cost more than the runs.

    accelerate launch several_runs.py RECIPE RUNS.json

RUNS.json is a list of `{"argv": [...], "copy": [FROM, TO] or null}`; FROM is copied before the run. What is refused is printed.
"""

import json
import os
import runpy
import shutil
import sys
from pathlib import Path


def main() -> None:
    recipe = runpy.run_path(sys.argv[1])["main"]
    for run in json.loads(Path(sys.argv[2]).read_text(encoding="utf-8")):
        print(f"run {run['argv']}", flush=True)
        if run["copy"] and os.environ["RANK"] == "0":  # the others wait where the run begins
            shutil.copytree(*run["copy"])
        try:
            recipe(run["argv"])
        except ValueError as error:
            print(f"refused: {error}", flush=True)


if __name__ == "__main__":
    main()
