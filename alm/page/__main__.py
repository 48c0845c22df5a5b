"""Serves a page in the browser for one checkpoint: ask about a clip, speak a sentence, make a sound, hear a codec round trip.

    python -m alm.page CHECKPOINT            (needs the extra: pip install -e '.[page]')

The page asks nothing of other sites. `--share` is the exception: Gradio fetches its tunnel and gives a public address.
"""

import argparse
import os
from importlib.util import find_spec
from pathlib import Path

from alm.arguments import run_main

QUIET = {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_RUN_HISTORY": "False"}
"""Gradio reports to its makers and keeps what was asked in the browser, unless its environment says otherwise when it is imported."""


def main(argv: list[str] | None = None) -> None:
    """The command line; returns when the server is stopped. Raises `ContractError` where the checkpoint does not hold together."""
    about, _, rest = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        prog="alm page", description=about, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint", help="folder or Hub id of a checkpoint or of a LoRA adapter")
    parser.add_argument("--port", type=int, default=7860, help="port of 127.0.0.1 to listen on (default: 7860)")
    parser.add_argument(
        "--device", default="cpu", help="where model and codec run: cpu, cuda, cuda:1, … (default: cpu)"
    )
    parser.add_argument(
        "--share", action="store_true", help="a public address through Gradio's servers: all who know it can use it"
    )
    args = parser.parse_args(argv)
    missing = [name for name in ("gradio", "matplotlib") if find_spec(name) is None]
    if missing:
        parser.error(f"the page needs {' and '.join(missing)}: pip install -e '.[page]'")
    os.environ.update(QUIET)

    from alm.checkpoint import load_checkpoint
    from alm.page.layout import build, launch_options

    page = build(load_checkpoint(args.checkpoint, device=args.device), Path(args.checkpoint).name)
    try:
        _, address, _ = page.launch(
            server_port=args.port, share=args.share, prevent_thread_lock=True, quiet=not args.share, **launch_options()
        )
    except OSError:  # Gradio's words on it speak of its own parameters
        parser.error(f"--port {args.port} is taken or not allowed; name another")
    print(f"{address} shows the page; Ctrl-C ends it", flush=True)
    page.block_thread()


if __name__ == "__main__":
    run_main(main)
