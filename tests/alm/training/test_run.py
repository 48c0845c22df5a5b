"""The output folder's life: fresh, interrupted, finished."""

import json
from pathlib import Path

import pytest

from alm.data.example import DataError
from alm.training.run import clear, is_complete, require_same_data, starting_point, write_manifest


def checkpoint(output: Path, step: int, whole: bool = True) -> Path:
    folder = output / f"checkpoint-{step}"
    folder.mkdir(parents=True)
    if whole:
        (folder / "trainer_state.json").write_text(json.dumps({"global_step": step, "max_steps": 30}))
    return folder


def test_starting_point(tmp_path: Path) -> None:
    assert starting_point(tmp_path / "new", "auto") is None
    with pytest.raises(DataError, match="no checkpoint to go on from"):
        starting_point(tmp_path / "new", "True")
    checkpoint(tmp_path, 9)
    last = checkpoint(tmp_path, 10)
    checkpoint(tmp_path, 11, whole=False)  # killed while it was written
    assert starting_point(tmp_path, "auto") == starting_point(tmp_path, "true") == str(last)
    assert starting_point(tmp_path, str(tmp_path / "checkpoint-9")) == str(tmp_path / "checkpoint-9")
    with pytest.raises(DataError, match=r"trainer_state\.json"):
        starting_point(tmp_path, str(tmp_path / "checkpoint-11"))
    write_manifest(tmp_path, {"recipe": "x"}, ["x.py"])
    with pytest.raises(DataError, match="finished run"):
        starting_point(tmp_path, "auto")
    clear(tmp_path)
    assert starting_point(tmp_path, "auto") is None and not list(tmp_path.iterdir())


def test_is_complete(tmp_path: Path) -> None:
    folder = str(checkpoint(tmp_path, 20))
    assert not is_complete(None, 20) and is_complete(folder, 20) and is_complete(folder, 19)
    assert not is_complete(folder, 21) and not is_complete(folder, -1)


def test_the_data_must_stay(tmp_path: Path) -> None:
    record = tmp_path / "digest.json"
    require_same_data(record, "aa", going_on=False)
    require_same_data(record, "aa", going_on=True)
    with pytest.raises(DataError, match="digest bb, then aa"):
        require_same_data(record, "bb", going_on=True)
    require_same_data(record, "bb", going_on=False)


def test_manifest(tmp_path: Path) -> None:
    write_manifest(tmp_path, {"recipe": "x"}, ["x.py", "--a b"])
    data = json.loads((tmp_path / "manifest.json").read_text())
    assert data["recipe"] == "x" and data["command"] == "x.py '--a b'" and {"torch", "trl"} <= data["versions"].keys()
