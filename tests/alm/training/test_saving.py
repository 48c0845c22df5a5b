"""Folders that are whole or absent, at whatever point writing ends; Transformers' own rotation is the reference."""

import errno
import json
import random
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from transformers.trainer_utils import rotate_checkpoints

from alm.training import saving
from alm.training.run import begin
from alm.training.saving import (
    ASIDE,
    STATE,
    SavingError,
    checkpoints,
    discard,
    is_whole,
    put_contents_in_place,
    put_in_place,
    rotate,
    tidy,
    writing,
)
from alm.training.training_log import drop_later

ALONE = SimpleNamespace(is_main_process=True, wait_for_everyone=lambda: None)


def checkpoint(output: Path, step: int, state: str | None = '{"global_step": 1}', name: str = "") -> Path:
    folder = output / (name or f"checkpoint-{step}")
    (folder / "inner").mkdir(parents=True)
    (folder / "inner" / "weights").write_text(f"weights of {step}")
    if state is not None:
        (folder / STATE).write_text(state)
    return folder


class Killed(BaseException):
    """Stands for SIGKILL: no `except Exception` sees it."""


@pytest.mark.parametrize("state", [None, "", '{"global_st', "[]", "{}"])
def test_a_torn_checkpoint_is_passed_over(tmp_path: Path, state: str | None, capsys: Any) -> None:
    good = checkpoint(tmp_path, 9)
    torn = checkpoint(tmp_path, 10, state)
    checkpoint(tmp_path, 0, name="checkpoint-best")  # somebody's own
    assert not is_whole(torn) and checkpoints(tmp_path) == [good]
    assert begin(tmp_path, ALONE, False) == str(good)
    out = capsys.readouterr().out
    assert "checkpoint-10 is passed over" in out and "checkpoint-9" not in out
    put_in_place(checkpoint(tmp_path / ASIDE, 10), torn)
    assert checkpoints(tmp_path) == [good, torn] and not (tmp_path / ASIDE).exists()


def test_what_a_kill_left_aside_is_removed(tmp_path: Path, capsys: Any) -> None:
    good = checkpoint(tmp_path, 9)
    checkpoint(tmp_path / ASIDE, 10)
    checkpoint(tmp_path / ASIDE, 3, name="checkpoint-3.removed")
    (tmp_path / ".tmp-12-0").write_text("half a file")
    assert begin(tmp_path, ALONE, False) == str(good)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-9"]
    out = capsys.readouterr().out
    assert "checkpoint-10 was being written" in out and "checkpoint-3" not in out
    assert begin(tmp_path, ALONE, True) is None and not list(tmp_path.iterdir())


@pytest.mark.parametrize("renames", [0, 1, 2])
def test_a_checkpoint_written_again_is_there_whenever_it_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, renames: int
) -> None:
    place = checkpoint(tmp_path, 5)
    new = checkpoint(tmp_path / ASIDE, 5, '{"global_step": 2}')
    rename, done = Path.rename, []

    def killed_after(path: Path, target: Path) -> Path:
        if len(done) == renames:
            raise Killed
        done.append(path)
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", killed_after)
    if renames < 2:
        with pytest.raises(Killed):
            put_in_place(new, place)
    else:
        put_in_place(new, place)
    monkeypatch.undo()
    tidy(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-5"]
    assert json.loads((place / STATE).read_text())["global_step"] == (2 if renames == 2 else 1)
    assert (place / "inner" / "weights").is_file()


def test_a_checkpoint_half_removed_is_not_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = [checkpoint(tmp_path, step) for step in (1, 2)]

    def half(path: Path, **_: Any) -> None:
        if path.exists():
            (path / "inner" / "weights").unlink()
            raise Killed

    monkeypatch.setattr(shutil, "rmtree", half)
    with pytest.raises(Killed):
        discard(folders[0])
    monkeypatch.undo()
    assert checkpoints(tmp_path) == [folders[1]]
    tidy(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-2"]


@pytest.mark.parametrize("seed", range(20))
def test_rotation_keeps_what_transformers_keeps(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    steps = sorted(rng.sample(range(1, 200), rng.randint(1, 6)))
    best, limit = rng.choice([None, *steps]), rng.choice([None, 0, 1, 2, 3])
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    named = f"{theirs}/checkpoint-{best}" if best else None
    for output in (ours, theirs):  # as if the folder had been moved after the best was named
        for step in steps:
            checkpoint(output, step, json.dumps({"global_step": step, "best_model_checkpoint": named}))
    rotate(ours, limit, rng.choice([None, ours / f"checkpoint-{steps[-1]}"]))
    rotate_checkpoints(str(theirs), limit, named)
    assert {path.name for path in ours.iterdir()} == {path.name for path in theirs.iterdir()}


def test_rotation_keeps_the_newest_where_a_run_went_on_from_an_earlier_one(tmp_path: Path) -> None:
    folders = [checkpoint(tmp_path, step) for step in (5, 6, 10)]
    rotate(tmp_path, 1, folders[1])
    assert checkpoints(tmp_path) == [folders[1]]


def test_contents_go_over_what_is_there(tmp_path: Path) -> None:
    new = tmp_path / ASIDE / "final"
    for folder, word in ((new, "new"), (tmp_path, "old")):
        (folder / "codec").mkdir(parents=True)
        (folder / "model.safetensors").write_text(word)
        (folder / "codec" / f"{word}.json").write_text(word)
    (tmp_path / "training_log.jsonl").write_text("kept")
    put_contents_in_place(new, tmp_path)
    found = {str(path.relative_to(tmp_path)): path.read_text() for path in tmp_path.rglob("*") if path.is_file()}
    assert found == {"model.safetensors": "new", "codec/new.json": "new", "training_log.jsonl": "kept"}
    assert not (tmp_path / ASIDE).exists()


@pytest.mark.parametrize(
    "error",  # as raised on a full tmpfs by Python, torch 2.13 (three ways), safetensors 0.8, tokenizers, Arrow; and by a quota
    [
        OSError(errno.ENOSPC, "No space left on device"),
        RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534"),
        RuntimeError("basic_ios::clear: iostream error"),
        RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed"),
        RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"),
        Exception("No space left on device (os error 28)"),
        OSError("[Errno 28] Error writing bytes to file. Detail: [errno 28] No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
    ],
)
def test_a_full_disk_is_said(tmp_path: Path, error: Exception) -> None:
    good = checkpoint(tmp_path, 9)
    checkpoint(tmp_path / ASIDE, 10)
    with pytest.raises(SavingError) as info, writing(tmp_path / "checkpoint-10", tmp_path):
        raise error
    said = str(info.value)
    assert f"{tmp_path}/checkpoint-10 could not be written" in said and str(error) in said and "iB were free" in said
    assert f"{good}, is whole" in said and "the same command, without --overwrite_output, goes on from there" in said
    assert not (tmp_path / ASIDE).exists() and info.value.__cause__ is error
    with pytest.raises(SavingError) as again, writing("a file", tmp_path):
        raise info.value
    assert again.value is info.value
    shutil.rmtree(good)
    with (
        pytest.raises(SavingError, match=r"no whole checkpoint yet: make room, .* begins from the first step"),
        writing("a", tmp_path),
    ):
        raise ValueError("wrapped") from error


def test_other_errors_are_not_the_disk_s(tmp_path: Path) -> None:
    torn = "PytorchStreamReader failed reading zip archive: failed finding central directory"
    for error in (FileNotFoundError(errno.ENOENT, "no such file"), RuntimeError(torn), ValueError("x"), Killed()):
        with pytest.raises(type(error)) as info, writing("a file", tmp_path):
            raise error
        assert info.value is error


def test_a_log_s_last_line_may_be_torn(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    lines = [json.dumps({"step": step, "loss": 0.5}) + "\n" for step in (1, 2, 3)]
    for torn in ('{"step": 4, "lo', '{"step": 4}', "{", "\0\0"):
        log.write_text("".join(lines) + torn)
        drop_later(log, 9)
        assert log.read_text() == "".join(lines)
    drop_later(log, 2)
    assert log.read_text() == "".join(lines[:2])
    assert [path.name for path in tmp_path.iterdir()] == ["log.jsonl"]


def test_nothing_is_renamed_before_it_is_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    new = checkpoint(tmp_path / ASIDE, 5)
    flushed: list[str] = []

    def flush(path: Path) -> None:
        assert path.exists()
        flushed.append(str(path.relative_to(tmp_path)))

    monkeypatch.setattr(saving, "_flush_one", flush)
    files = {f".writing/checkpoint-5{rest}" for rest in ("", "/inner", "/inner/weights", f"/{STATE}")}
    put_in_place(new, tmp_path / "checkpoint-5")
    assert set(flushed[:-1]) == files and flushed[-1] == "."
