"""Not a test: evaluations one after another in the processes of one launch, which costs more than they do.

    accelerate launch several_evaluations.py RUNS.json

RUNS.json is a list of `[SCRIPT, [FLAG, ...]]`. What is refused is printed.
"""

import json
import runpy
import sys
from pathlib import Path


def main() -> None:
    for script, argv in json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")):
        try:
            runpy.run_path(script)["main"](argv)
        except ValueError as error:
            print(f"refused: {error}", flush=True)


if __name__ == "__main__":
    main()
