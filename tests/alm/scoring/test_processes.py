"""Processes of a launch: devices, and one process alone. Real launches: `tests/eval/test_several_processes.py`."""

from pathlib import Path

import pytest
import torch

from alm.data.example import DataError
from alm.scoring.processes import Processes, launched

TWO = Processes(index=1, number=2)


def place(monkeypatch: pytest.MonkeyPatch, rank: int, processes: int, gpus: int) -> None:
    """As the second of two processes in all, on a machine with so many of them and so many GPUs."""
    monkeypatch.setenv("LOCAL_RANK", str(rank))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)


def test_each_process_of_a_machine_has_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    place(monkeypatch, 1, 2, 8)
    assert TWO.device("cuda") == "cuda:1" and TWO.device("cpu") == "cpu"
    with pytest.raises(DataError, match="--device cuda:0 would put all processes of this machine on one device"):
        TWO.device("cuda:0")
    place(monkeypatch, 1, 2, 1)
    with pytest.raises(DataError, match=r"process 2 of this machine finds 1 × cuda: .*--num_processes 1"):
        TWO.device("cuda")


def test_alone_on_its_machine_a_process_takes_the_device_as_given(monkeypatch: pytest.MonkeyPatch) -> None:
    place(monkeypatch, 0, 1, 4)
    for name in ("cpu", "cuda", "cuda:3"):
        assert TWO.device(name) == Processes().device(name) == name


def test_a_device_that_is_not_here_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    place(monkeypatch, 0, 1, 1)
    with pytest.raises(DataError, match=r"--device cuda:3: torch .* finds 1 × cuda here"):
        Processes().device("cuda:3")
    for name in ("gpu", "meta"):
        with pytest.raises(DataError, match=f"--device {name}: torch knows no such device"):
            Processes().device(name)


def test_outside_of_a_launch_there_is_one_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    alone = launched.__wrapped__()
    batches = [[1, 2], [3]]
    assert alone.is_main and list(alone.share(batches, "x", "y")) == batches
    with alone.main_first(), alone.open_log(tmp_path / "x.jsonl", "k", False) as log:
        log.append([{"id": "b"}, {"id": "a"}])
        alone.collect(log, ["a", "b"])
    assert [path.name for path in tmp_path.iterdir()] == ["x.jsonl"]
