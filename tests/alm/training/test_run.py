"""The output folder's life: fresh, interrupted, finished."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from alm.arguments import ConfigFileError
from alm.data.example import DataError
from alm.training.run import (
    clear,
    is_complete,
    require_same_contract,
    require_same_data,
    settle_batch,
    starting_point,
    write_manifest,
)
from alm.vocabulary import ContractError

ROOT = Path(__file__).parents[3]


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
    require_same_data(record, "cc", going_on=False, write=False)
    require_same_data(record, "bb", going_on=True)
    require_same_data(record, "bb", going_on=False, seed=1, sizes=(8, 16))
    require_same_data(record, "bb", going_on=True, write=False, seed=1, sizes=(8, 16))
    with pytest.raises(DataError, match=r"\(seed 2, then 1\)"):
        require_same_data(record, "bb", going_on=True, write=False, seed=2, sizes=(8, 16))


def test_manifest(tmp_path: Path) -> None:
    write_manifest(tmp_path, {"recipe": "x"}, ["x.py", "--a b"])
    data = json.loads((tmp_path / "manifest.json").read_text())
    assert data["recipe"] == "x" and data["command"] == "x.py '--a b'" and {"torch", "trl"} <= data["versions"].keys()


def test_a_checkpoint_of_another_contract_is_not_gone_on_from(tmp_path: Path, make_vocabulary: Any) -> None:
    ours = make_vocabulary()
    for folder, theirs in (("same", ours), ("other", make_vocabulary(codebook_size=32))):
        (tmp_path / folder).mkdir()
        stored = json.dumps({"audio_vocabulary": theirs.to_dict()})
        (tmp_path / folder / "processor_config.json").write_text(stored)
    require_same_contract(None, ours)
    require_same_contract(str(tmp_path / "same"), ours)
    with pytest.raises(ContractError, match=f"{theirs.hash}.*{ours.hash}"):
        require_same_contract(str(tmp_path / "other"), ours)


def test_the_batch_that_was_asked_for_or_an_error() -> None:
    def settled(wanted: int | None, rows: int, accumulation: int, processes: int) -> int:
        given = {"per_device_train_batch_size": rows, "gradient_accumulation_steps": accumulation}
        training = SimpleNamespace(**given, world_size=processes)
        settle_batch(wanted, training)
        return training.gradient_accumulation_steps

    assert settled(256, 8, 1, 1) == 32 and settled(256, 8, 1, 8) == 4 and settled(256, 8, 4, 8) == 4
    assert settled(None, 3, 1, 5) == 1 and settled(8, 8, 1, 1) == 1
    for wrong in ((256, 8, 2, 1), (100, 8, 1, 1), (8, 8, 1, 2)):
        with pytest.raises(ConfigFileError, match=f"--effective_batch {wrong[0]}, but {wrong[1]} rows"):
            settled(*wrong)
