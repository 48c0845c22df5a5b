"""A training recipe killed for real, out of room, or told to stop: what is left, and where the same command then ends.

`benchmarks/training_kills.py` kills at many random moments.
"""

import json
import multiprocessing
import runpy
import shutil
import socket
import subprocess
import sys
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "recipes" / "sft_understanding.py"
FLAGS = ["--learning_rate", "5e-3", "--max_length", "256", "--per_device_train_batch_size", "1", "--warmup_steps", "0"]
FLAGS += ["--gradient_checkpointing", "false", "--disable_tqdm", "true", "--dataloader_drop_last", "true"]
# entries of the log and checkpoints do not fall together, so that sums of the log have to survive
FLAGS += ["--max_steps", "10", "--save_steps", "2", "--logging_steps", "3", "--save_total_limit", "2"]
contents = runpy.run_path(str(ROOT / "benchmarks" / "training_kills.py"))["contents"]
CHILD = """
import os, resource, runpy, signal, sys, torch
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job, as a test run may be, ignores Ctrl-C
for stream in (1, 2):
    os.dup2(os.open(SAID, os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)
from alm.arguments import run_main
from alm.training import saving, sft, whole_checkpoints

def end(kind=signal.SIGKILL):
    os.kill(os.getpid(), kind)

def at(owner, name, number, do, before=True):
    # `do` is done around the call of that number
    own, calls = getattr(owner, name), []
    def counted(*args, **kwargs):
        calls.append(name)
        if len(calls) == number and before:
            do(*args)
        result = own(*args, **kwargs)
        if len(calls) == number and not before:
            do(*args)
        return result
    setattr(owner, name, counted)

exec(BEFORE)
main = runpy.run_path(SCRIPT)["main"]
sys.argv = [SCRIPT, *ARGV]
run_main(main)
"""
# one server imports everything and forks: starting Python and TRL anew for each run would take many seconds each
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["codec", "alm.training.sft", "alm.training.language_model"])


def start(tmp_path: Path, argv: list[str], before: str = "") -> ForkServerProcess:
    """The recipe in a process of its own, which does `before` first; what it says is appended to `said`."""
    script = tmp_path / "child.py"
    script.write_text(CHILD)
    given = {"SAID": str(tmp_path / "said"), "BEFORE": before, "SCRIPT": str(SCRIPT), "ARGV": argv}
    process = CONTEXT.Process(target=runpy.run_path, args=(str(script), given))
    process.start()
    return process


def run(tmp_path: Path, argv: list[str], before: str = "") -> tuple[int, str]:
    """Exit code (negative: the signal) and what was said."""
    (tmp_path / "said").unlink(missing_ok=True)
    process = start(tmp_path, argv, before)
    process.join(300)
    return process.exitcode, (tmp_path / "said").read_text()


def arguments(workshop: Any, output: Path, *more: str) -> list[str]:
    fixed = ["--model", str(workshop.model), "--tokens", str(workshop.tokens), "--output_dir", str(output)]
    return [*fixed, *workshop.data(), *FLAGS, *more]


def left(output: Path) -> set[str]:
    """Checkpoints, and what is being written."""
    return {path.name for pattern in ("checkpoint-*", ".writing/*") for path in output.glob(pattern)}


@pytest.fixture(scope="module")
def whole(workshop: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run."""
    folder = tmp_path_factory.mktemp("whole")
    code, said = run(folder, arguments(workshop, folder / "lm"))
    assert code == 0, said
    return folder / "lm"


def test_a_finished_run_is_tidy(whole: Path) -> None:
    assert left(whole) == {"checkpoint-8", "checkpoint-10"} and not list(whole.glob(".*"))
    steps = [line["step"] for line in map(json.loads, (whole / "training_log.jsonl").read_text().splitlines())]
    assert steps == [3, 6, 9, 10]


def test_killed_in_training_in_saving_in_removing_and_at_the_end(workshop: Any, whole: Path, tmp_path: Path) -> None:
    output = tmp_path / "lm"
    half = "lambda what, file, *_: (open(file, 'wb').write(b'half a file'), end())"
    for before, expected in [
        ("at(sft.SequenceTrainer, 'compute_loss', 4, lambda *_: end())", {"checkpoint-2"}),
        # its weights are written and its optimizer in part
        (f"at(torch, 'save', 5, {half})", {"checkpoint-2", "checkpoint-4", ".writing/checkpoint-6"}),
        # renamed, and the oldest not yet removed; then half of it
        ("at(whole_checkpoints, 'rotate', 1, lambda *_: end())", {"checkpoint-2", "checkpoint-4", "checkpoint-6"}),
        (
            "at(saving, '_remove', 3, lambda *_: end())",
            {"checkpoint-6", "checkpoint-8", ".writing/checkpoint-4.removed"},
        ),
        ("at(whole_checkpoints, 'rotate', 1, lambda *_: end())", {"checkpoint-6", "checkpoint-8", "checkpoint-10"}),
        ("at(sft, 'put_contents_in_place', 1, lambda *_: end())", {"checkpoint-8", "checkpoint-10", ".writing/final"}),
    ]:
        code, said = run(tmp_path, arguments(workshop, output), before)
        assert code == -9 and left(output) == {name.removeprefix(".writing/") for name in expected}, said
        assert not (output / "manifest.json").exists()
    code, said = run(tmp_path, arguments(workshop, output))
    assert code == 0 and "final was being written when the run ended" in said, said
    assert contents(output) == contents(whole)


@pytest.mark.parametrize("step", [5, 6])
def test_sigterm_saves_stops_and_goes_on(workshop: Any, whole: Path, tmp_path: Path, step: int) -> None:
    output = tmp_path / "lm"
    before = f"at(sft.SequenceTrainer, 'compute_loss', {step}, lambda *_: end(signal.SIGTERM))"
    code, said = run(tmp_path, arguments(workshop, output, "--save_strategy", "no"), before)
    assert code == 75 and f"stopped by SIGTERM after step {step}" in said, said
    assert f"{output}/checkpoint-{step} is saved, and the same command" in said and "Traceback" not in said
    assert left(output) == {f"checkpoint-{step}"}
    code, said = run(tmp_path, arguments(workshop, output))
    assert code == 0 and f"going on from {output}/checkpoint-{step}" in said, said
    assert contents(output) == contents(whole)


def test_ctrl_c_loses_the_steps_since_the_last_checkpoint(workshop: Any, whole: Path, tmp_path: Path) -> None:
    output = tmp_path / "lm"
    before = "at(sft.SequenceTrainer, 'compute_loss', 6, lambda *_: end(signal.SIGINT))"
    code, said = run(tmp_path, arguments(workshop, output), before)
    assert code == 130 and "interrupted; run the same command again to go on" in said and "Traceback" not in said
    assert left(output) == {"checkpoint-2", "checkpoint-4"}
    code, said = run(tmp_path, arguments(workshop, output))
    assert code == 0 and f"going on from {output}/checkpoint-4" in said, said
    assert contents(output) == contents(whole)


def test_no_room_for_a_file(workshop: Any, whole: Path, tmp_path: Path) -> None:
    """A limit on the size of files, which any user may set, from the third checkpoint on."""
    output = tmp_path / "lm"
    limit = "lambda *_: resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, resource.RLIM_INFINITY))"
    code, said = run(
        tmp_path, arguments(workshop, output), f"at(sft.SequenceTrainer, '_save_checkpoint', 2, {limit}, False)"
    )
    assert code == 1 and f"error: {output}/checkpoint-6 could not be written" in said and "Traceback" not in said, said
    assert f"{output}/checkpoint-4, is whole: make room" in said
    assert left(output) == {"checkpoint-2", "checkpoint-4"} and not (output / ".writing").exists()
    code, said = run(tmp_path, arguments(workshop, output))
    assert code == 0 and contents(output) == contents(whole), said


def test_a_log_that_cannot_be_written(workshop: Any, tmp_path: Path) -> None:
    """Of a file that is no checkpoint, too, it is said which; here the first limit of size is the log's."""
    output = tmp_path / "lm"
    limit = "lambda *_: resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))"
    code, _ = run(tmp_path, arguments(workshop, output), f"at(sft.SequenceTrainer, 'compute_loss', 3, {limit})")
    # standard error is a file of the test's, and limited alike
    assert code == 1 and left(output) == {"checkpoint-2"} and (output / "training_log.jsonl").read_text() == ""


@pytest.mark.slow
@pytest.mark.skipif(
    shutil.which("unshare") is None or subprocess.run(["unshare", "-rm", "true"], check=False).returncode != 0,
    reason="no name spaces of one's own to mount a small file system in",
)
def test_disk_full(workshop: Any, whole: Path, tmp_path: Path) -> None:
    """A file system with room for two checkpoints and a half; the third is written before the first is removed."""
    one = sum(path.stat().st_size for path in (whole / "checkpoint-10").rglob("*") if path.is_file())
    output, disk = tmp_path / "disk" / "lm", tmp_path / "disk"
    disk.mkdir()
    mount = f'mount -t tmpfs -o size={one * 5 // 2} tmpfs "$0" && "$@"; code=$?; cp -a "$0" "$0.kept"; exit $code'
    command = [sys.executable, str(SCRIPT), *arguments(workshop, output)]
    done = subprocess.run(["unshare", "-rm", "sh", "-c", mount, str(disk), *command], capture_output=True, text=True)
    assert (
        done.returncode == 1 and f"error: {output}/checkpoint-6 could not be written: the disk is full" in done.stderr
    )
    assert f"{output}/checkpoint-4, is whole: make room (it has " in done.stderr and "Traceback" not in done.stderr
    kept = tmp_path / "disk.kept" / "lm"
    assert left(kept) == {"checkpoint-2", "checkpoint-4"}
    disk.rmdir()
    kept.parent.rename(disk)
    code, said = run(tmp_path, arguments(workshop, output))
    assert code == 0 and f"going on from {output}/checkpoint-4" in said and contents(output) == contents(whole), said


@pytest.mark.slow
def test_two_processes_agree(workshop: Any, tmp_path: Path) -> None:
    """One of two is killed amid its part of a checkpoint; one of two is told to stop."""
    ranks = iter(range(9))

    def both(name: str, before: str = "") -> list[int]:
        (tmp_path / "said").unlink(missing_ok=True)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        given = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        processes = []
        for rank in ("0", "1"):
            environment = {**given, "RANK": rank, "LOCAL_RANK": rank, "ACCELERATE_USE_CPU": "true"}
            own = tmp_path / f"child{next(ranks)}"
            own.mkdir()
            own_before = f"os.environ.update({environment!r})\n" + (before if rank == "1" else "")
            processes.append(start(own, arguments(workshop, tmp_path / name), own_before))
        processes[1].join(300)
        if processes[1].exitcode == -9:
            processes[0].kill()  # it waits, as a launcher would find
        processes[0].join(300)
        return [process.exitcode for process in processes]

    assert both("whole") == [0, 0]
    # of process 1, torch.save writes random states alone
    first, second = both("lm", "at(torch, 'save', 2, lambda *_: end())")
    assert first in (1, -9) and second == -9  # the other one's connection is gone, or it is killed while it waits
    assert left(tmp_path / "lm") == {"checkpoint-2", "checkpoint-4"}
    assert list((tmp_path / "lm" / ".writing").iterdir()) == [tmp_path / "lm" / ".writing" / "checkpoint-4"]
    assert both("lm", "at(sft.SequenceTrainer, 'compute_loss', 3, lambda *_: end(signal.SIGTERM))") == [75, 75]
    assert left(tmp_path / "lm") == {"checkpoint-4", "checkpoint-5"}
    assert both("lm") == [0, 0]
    assert contents(tmp_path / "lm") == contents(tmp_path / "whole")
