"""`alm COMMAND …` (or `python -m alm COMMAND …`): the tools that are no recipe."""

import sys
from importlib import import_module

from alm.arguments import run_main

COMMANDS = {
    "doctor": ("alm.doctor", "examine a checkpoint's folder: what does not fit, and the cure"),
    "serve": ("alm.serving.launch", "check a checkpoint's contract, then start an engine's server on it"),
    "page": ("alm.page.__main__", "a page in the browser for a checkpoint: ask, speak, make a sound, codec round trip"),
}


def main(argv: list[str] | None = None) -> int:
    """Hand the arguments to a command; returns its exit status. A user's mistake is one line on stderr and status 1."""
    given = sys.argv[1:] if argv is None else argv
    if not given or given[0] not in COMMANDS:
        known = "\n".join(f"  {name:<10} {about}" for name, (_, about) in COMMANDS.items())
        print(f"alm COMMAND …, each with --help:\n{known}")
        return 0 if given in ([], ["-h"], ["--help"]) else 2
    status: list[int | None] = []
    command = import_module(COMMANDS[given[0]][0]).main
    run_main(lambda: status.append(command(given[1:])))
    return status[0] or 0


if __name__ == "__main__":
    sys.exit(main())
