"""`alm COMMAND …` (or `python -m alm COMMAND …`): the tools that are no recipe."""

import sys
from importlib import import_module

COMMANDS = {
    "doctor": ("alm.doctor", "examine a checkpoint's folder: what does not fit, and the cure"),
    "page": ("alm.page.__main__", "a page in the browser for one checkpoint: ask, speak, make a sound, codec round trip"),
}


def main(argv: list[str] | None = None) -> int:
    """Hand the arguments to a command; returns its exit status."""
    given = sys.argv[1:] if argv is None else argv
    if not given or given[0] not in COMMANDS:
        known = "\n".join(f"  {name:<10} {about}" for name, (_, about) in COMMANDS.items())
        print(f"alm COMMAND …, each with --help:\n{known}")
        return 0 if given in ([], ["-h"], ["--help"]) else 2
    return int(import_module(COMMANDS[given[0]][0]).main(given[1:]))


if __name__ == "__main__":
    sys.exit(main())
