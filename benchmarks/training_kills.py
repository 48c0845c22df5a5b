"""`kill -9` of a training recipe at random moments of training and of saving: does it end with the uninterrupted run's weights and log?

    python benchmarks/training_kills.py --output DIR [--kills 20] [--ranks 1] -- recipes/sft_understanding.py FLAGS OF THE RECIPE

Every other kill waits for a checkpoint that is being written and falls within the time that one takes; the others fall anywhere in the
first half of the time that a whole run takes when TRL is loaded. A run that is over before its kill does not count: what it made
is compared, and another begun. After each kill the last whole checkpoint must be no earlier than before. Prints one line a run and stops
with an error at the first difference. Give few --save_steps, so that many moments are of saving, and a --logging_steps that does not divide
them, so that the log's sums have to survive.
"""

import json
import math
import multiprocessing
import os
import random
import runpy
import shutil
import socket
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alm.arguments import ConfigFileError, parse_arguments, run_main

# a server that has imported everything once and forks: a new Python would take most of the time
CONTEXT = multiprocessing.get_context("forkserver")
TIMED = ("manifest.json", "training_args.bin", "trainer_state.json", "training_log.jsonl")


@dataclass
class KillArguments:
    output: str = field(metadata={"help": "a new folder for the runs"})
    kills: int = field(default=20, metadata={"help": "kills"})
    ranks: int = field(default=1, metadata={"help": "processes, on the CPU"})
    seed: int = field(default=0, metadata={"help": "of the moments"})


def main(argv: list[str] | None = None) -> None:
    argv = sys.argv[1:] if argv is None else argv
    place = argv.index("--") if "--" in argv else len(argv)
    args, recipe = parse_arguments(KillArguments, argv[:place], description=__doc__), argv[place + 1 :]
    if not recipe:
        raise ConfigFileError("give the recipe and its flags, without --output_dir, behind --")
    CONTEXT.set_forkserver_preload(
        ["codec", "alm.training.sft", "alm.preference.trainers", "alm.training.language_model"]
    )
    output = Path(args.output)
    output.mkdir(parents=True)
    whole, killed = output / "whole", output / "killed"
    run, begun = Run(recipe, whole, args.ranks), time.monotonic()
    saves = watch_saves(run)
    run.finish()
    duration, expected = time.monotonic() - begun, contents(whole)
    saved = f"{len(saves)} saves of {sum(saves) / len(saves) * 1000:.0f} ms on average"
    print(f"uninterrupted: {duration:.1f} s, {saved}, {len(expected)} files", flush=True)
    rng, hit, finished = random.Random(args.seed), Counter[str](), 0
    while hit.total() < args.kills:
        before = last_step(killed)
        run, begun = Run(recipe, killed, args.ranks), time.monotonic()
        if hit.total() % 2:
            saves = watch_saves(run, rng.randint(2, 5)) or saves
            time.sleep(rng.uniform(0, saves[-1]))  # by the last one, as the machine may be slower or faster by now
        else:
            time.sleep(rng.uniform(0, duration / 2))
        over = run.kill()
        duration = min(duration, time.monotonic() - begun) if over else duration
        where = "over before its kill" if over else moment(killed)
        hit.update([] if over else [where])
        print(f"{hit.total():3} {where}; last checkpoint {before} → {last_step(killed)}", flush=True)
        if last_step(killed) < before:
            raise RuntimeError("a whole checkpoint is gone")
        if not over and hit.total() == args.kills:
            Run(recipe, killed, args.ranks).finish()
        if over or hit.total() == args.kills:
            require_same(contents(killed), expected)
            finished += 1
            shutil.rmtree(killed)
    print(
        f"{hit.total()} kills ({', '.join(f'{count} {where}' for where, count in hit.most_common())}); {finished} finished runs, ",
        end="",
    )
    print("all files and logs those of the uninterrupted one")


class Run:
    """A recipe at work in processes of its own, which have loaded Python when this is made."""

    def __init__(self, recipe: list[str], output: Path, ranks: int) -> None:
        self.output, self.processes, (begun, beginning) = output, [], CONTEXT.Pipe(duplex=False)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        for rank in range(ranks):
            world = {
                "RANK": rank,
                "LOCAL_RANK": rank,
                "WORLD_SIZE": ranks,
                "LOCAL_WORLD_SIZE": ranks,
                "MASTER_PORT": port,
            }
            argv = [*recipe[1:], "--output_dir", str(output), "--use_cpu", "true", "--disable_tqdm", "true"]
            said = f"{output}.said.{rank}"
            process = CONTEXT.Process(target=work, args=(recipe[0], argv, world if ranks > 1 else {}, said, beginning))
            process.start()
            self.processes.append(process)
        beginning.close()  # where a process ends before it begins, the next line raises
        for _ in self.processes:
            begun.recv()

    def is_over(self) -> bool:
        """Whether all processes have ended by themselves."""
        return all(process.exitcode is not None for process in self.processes)

    def kill(self) -> bool:
        """SIGKILL to all; whether the run was over before."""
        over = self.is_over()
        for process in self.processes:
            process.kill()
        self._join(0 if over else -9)
        return over

    def finish(self) -> None:
        """Wait for the end."""
        self._join(0)

    def _join(self, expected: int) -> None:
        for process in self.processes:
            process.join()
            if process.exitcode not in (expected, 0):
                raise RuntimeError(f"a process ended with {process.exitcode}; {self.output}.said.* has what it said")


def work(script: str, argv: list[str], world: dict[str, int], said: str, beginning: Any) -> None:
    """A process of a run."""
    for stream in (1, 2):
        os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
    environment = {"ACCELERATE_USE_CPU": "true", "MASTER_ADDR": "127.0.0.1"} if world else {}
    os.environ.update({**environment, **{name: str(value) for name, value in world.items()}})
    sys.argv = [script, *argv]
    recipe = runpy.run_path(script)["main"]
    beginning.send(None)
    recipe(argv)


def watch_saves(run: Run, number: float = math.inf) -> list[float]:
    """Seconds of each save before the one of that number, which has just begun when this returns; of all, where the run ends before."""
    seconds: list[float] = []
    since = None
    while not run.is_over():
        writing = bool(being_written(run.output))
        if writing and since is None:
            since = time.monotonic()
            if len(seconds) + 1 >= number:
                break
        elif not writing and since is not None:
            seconds.append(time.monotonic() - since)
            since = None
        time.sleep(0.0005)
    return seconds


def being_written(output: Path) -> set[str]:
    """Names of what stands aside and is on its way in, not out."""
    try:
        found = [path.name for path in (output / ".writing").iterdir()]
    except FileNotFoundError:
        return set()
    return {name for name in found if not name.endswith((".removed", ".replaced"))}


def moment(output: Path) -> str:
    """What a killed run was at."""
    if written := being_written(output):
        return "amid the final weights" if "final" in written else "amid a checkpoint"
    if (output / ".writing").exists():
        return "amid the removal of a checkpoint"
    return "elsewhere"


def last_step(output: Path) -> int:
    """Step of the last whole checkpoint; 0 where there is none."""
    from alm.training.saving import checkpoints

    found = checkpoints(output)
    return int(found[-1].name.rpartition("-")[2]) if found else 0


def contents(output: Path) -> dict[str, bytes]:
    """Every file but those that hold times or paths, and the log without them."""
    files = {path for path in output.rglob("*") if path.is_file() and path.name not in TIMED}
    found = {str(path.relative_to(output)): path.read_bytes() for path in files}
    lines = [json.loads(line) for line in (output / "training_log.jsonl").read_text(encoding="utf-8").splitlines()]
    kept = [{key: line[key] for key in line if key != "seconds"} for line in lines if "train_runtime" not in line]
    return {**found, "training_log.jsonl": json.dumps(kept).encode()}


def require_same(found: dict[str, bytes], expected: dict[str, bytes]) -> None:
    """Raise `RuntimeError` with the names of files that differ."""
    different = sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))
    if different:
        raise RuntimeError(f"{len(different)} files differ from the uninterrupted run's: {', '.join(different[:5])}")


if __name__ == "__main__":
    run_main(main)
