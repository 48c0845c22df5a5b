"""`kill -9` of a whole launch at random moments while ranks tokenise: is the finished store that of an uninterrupted run?

    python benchmarks/tokenize_kills.py --codec CODEC --audio DIR --output DIR [--kills 20] [--ranks 2]

Each kill hits every process of the launch, at a moment drawn from the time that a whole run works on its store (loading Python and the
codec comes before and is no sport). A run that is over before its kill does not count: its store is compared, and another begun. Prints one
line a run and stops with an error at the first difference.
"""

import hashlib
import os
import random
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from alm.arguments import parse_arguments, run_main

SCRIPT = Path(__file__).parents[1] / "recipes" / "tokenize_corpus.py"


@dataclass
class KillArguments:
    codec: str = field(metadata={"help": "folder of a codec"})
    audio: list[str] = field(metadata={"help": "folders of recordings"})
    output: str = field(metadata={"help": "a new folder for the stores"})
    kills: int = field(default=20, metadata={"help": "kills"})
    ranks: int = field(default=2, metadata={"help": "processes"})
    frames_per_batch: int = field(default=500, metadata={"help": "small batches: more moments that differ"})
    seed: int = field(default=0, metadata={"help": "of the moments"})


def main(argv: list[str] | None = None) -> None:
    args = parse_arguments(KillArguments, argv, description=__doc__)
    from alm.data.example import DataError
    from alm.data.tokens import TokenStore

    output = Path(args.output)
    output.mkdir(parents=True)
    process = start(args, output / "whole")
    wait_for_work(process, output / "whole")
    begun = time.monotonic()
    finish(process)
    duration = time.monotonic() - begun
    reference, clips = digest(output / "whole"), len(TokenStore.open(output / "whole"))
    print(f"uninterrupted: {clips} clips in {duration:.1f} s, digest of all files {reference}", flush=True)
    rng, kills, finished, store = random.Random(args.seed), 0, 0, output / "killed"
    while kills < args.kills:
        process = start(args, store)
        wait_for_work(process, store)
        moment = rng.uniform(0, duration)
        time.sleep(moment)
        over = process.poll() is not None
        kill_all(process)
        kills += not over
        left = sum(path.is_file() for path in store.rglob(".tmp-*"))
        kept = len(TokenStore.open(store)) if (store / "store.json").is_file() else 0
        what = "over before its kill" if over else f"kill {kills}"
        print(f"{what} at {moment:.1f} s: {kept} clips kept, {left} temporary files", flush=True)
        if over or kills == args.kills:
            finish(start(args, store))
            found = digest(store)
            if found != reference:
                raise DataError(f"{store} has digest {found}, the uninterrupted store {reference}")
            finished += 1
            shutil.rmtree(store)
    print(f"{kills} kills, {finished} finished stores: all with digest {reference}, no other file")


def start(args: KillArguments, store: Path) -> "subprocess.Popen[bytes]":
    """A launch on the CPU."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(args.ranks)]
    what = ["--codec", args.codec, "--audio", *args.audio, "--output", str(store)]
    how = ["--device", "cpu", "--frames_per_batch", str(args.frames_per_batch), "--flush_seconds", "0.3"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    command = [sys.executable, *launcher, str(SCRIPT), *what, *how]
    quiet = subprocess.DEVNULL
    return subprocess.Popen(command, env=environment, stdout=quiet, stderr=quiet)


def wait_for_work(process: "subprocess.Popen[bytes]", store: Path) -> None:
    """Until a rank holds the store's lock; asked of the system, as trying it would keep the rank out."""
    while process.poll() is None:
        locks = Path("/proc/locks").read_text(encoding="ascii")
        if store.exists() and f":{store.stat().st_ino} " in locks:
            return
        time.sleep(0.02)


def kill_all(process: "subprocess.Popen[bytes]") -> None:
    """SIGKILL to the launcher and to its ranks, which it starts in sessions of their own."""
    import psutil

    if process.poll() is None:
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        for member in family:
            member.kill()
        psutil.wait_procs(family)
    process.wait()


def finish(process: "subprocess.Popen[bytes]") -> None:
    if process.wait():
        raise RuntimeError(f"the launch ended with {process.returncode}")


def digest(store: Path) -> str:
    """Of every file, hidden ones too: names and bytes. Sources hold paths relative to the store, so stores lie side by side."""
    total = hashlib.sha256()
    for path in sorted(path for path in store.rglob("*") if path.is_file()):
        total.update(f"{path.relative_to(store)} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return total.hexdigest()[:16]


if __name__ == "__main__":
    run_main(main)
