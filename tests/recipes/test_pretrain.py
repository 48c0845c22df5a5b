"""Pretraining and generation: any data set under several tasks, shares kept, test clips out, samples that leave training as it was."""

import csv
import json
import re
import runpy
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from alm.arguments import ConfigFileError
from alm.checkpoint import load_checkpoint
from alm.data.example import CAPTION, TRANSCRIPT, DataError, ReadReport
from alm.training.sources import data_sets, replay_set

ROOT = Path(__file__).parents[2]
FAST = ["--learning_rate", "5e-3", "--max_length", "256", "--per_device_train_batch_size", "2", "--logging_steps", "1"]
FAST += ["--gradient_checkpointing", "false", "--disable_tqdm", "true", "--warmup_steps", "0"]


@pytest.fixture(scope="module", params=["pretrain.py", "train_generation.py"])
def recipe(request: Any) -> Any:
    return request.param, runpy.run_path(str(ROOT / "recipes" / request.param))["main"]


@pytest.fixture(scope="module")
def lists(workshop: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The workshop's clips as captions and as transcripts, and text alone."""
    folder = tmp_path_factory.mktemp("lists")
    for kind in (CAPTION, TRANSCRIPT):
        with (folder / f"{kind}.csv").open("w", newline="") as file:
            table = csv.writer(file)
            table.writerow(["file_name", kind])
            table.writerows([f"{n}.wav", f"{kind} number {n}"] for n in range(6))
    (folder / "text.jsonl").write_text("".join(json.dumps({"text": f"a line {n}"}) + "\n" for n in range(40)))
    given = {
        kind: f"folder={folder}/{kind}.csv,audio={workshop.folder}/audio,kind={kind}" for kind in (CAPTION, TRANSCRIPT)
    }
    return {**given, "text": f"{folder}/text.jsonl"}


def arguments(workshop: Any, lists: dict[str, str], output: Path, *more: str) -> list[str]:
    fixed = ["--model", str(workshop.model), "--tokens", str(workshop.tokens), "--output_dir", str(output)]
    data = ["--data", lists[CAPTION], lists[TRANSCRIPT], "--replay", lists["text"], "--replay_share", "0.25"]
    return [*fixed, *data, *FAST, *more]


def test_it_learns_its_tasks_and_ends_as_a_complete_checkpoint(
    recipe: Any, workshop: Any, lists: dict[str, str], tmp_path: Path
) -> None:
    name, main = recipe
    main(
        arguments(
            workshop, lists, tmp_path / "lm", "--max_steps", "12", "--save_steps", "6", "--samples", "ask=Is it loud?"
        )
    )
    log = [json.loads(line) for line in (tmp_path / "lm" / "training_log.jsonl").read_text().splitlines()]
    assert log[11]["loss"] < log[0]["loss"]
    manifest = json.loads((tmp_path / "lm" / "manifest.json").read_text())
    tasks = {
        "pretrain.py": ("describe", "make_sound", "audio_only", "transcribe", "speak"),
        "train_generation.py": ("make_sound", "speak"),
    }
    assert manifest["recipe"] == name and {n.split()[-1] for n in manifest["mixture"]["names"]} == {
        *tasks[name],
        "as_it_is",
    }
    sets = manifest["data"]["sets"]
    assert [f"{one['name']} {one['task']}" for one in sets] == manifest["mixture"]["names"]
    assert all(len(one["sequences"]) == 16 and one["inputs"][0].startswith("folder=") for one in sets[:-1])
    shares = dict(zip(manifest["mixture"]["names"], manifest["mixture"]["shares"], strict=True))
    rows = sum(manifest["mixture"]["rows"])
    assert abs(shares["text as_it_is"] - 0.25) <= 1 / rows
    model, processor = load_checkpoint(tmp_path / "lm")
    assert model.config.tie_word_embeddings and processor.codec is not None
    (sample,) = [json.loads(line) for line in (tmp_path / "lm" / "samples" / "samples.jsonl").read_text().splitlines()]
    assert sample["step"] == 12 and isinstance(sample["answer"], str)


def test_samples_and_interruptions_change_nothing(workshop: Any, lists: dict[str, str], tmp_path: Path) -> None:
    main = runpy.run_path(str(ROOT / "recipes" / "train_generation.py"))["main"]
    steps = ["--max_steps", "10", "--save_steps", "4"]
    main(arguments(workshop, lists, tmp_path / "plain", *steps))
    sampled = arguments(workshop, lists, tmp_path / "sampled", *steps, "--samples", "ask=a", "--samples_steps", "3")
    main(sampled)
    # as if it had been killed after its first checkpoint: what came later is gone
    folder = tmp_path / "sampled"
    expected = load_file(folder / "model.safetensors")
    for name in ("manifest.json", "model.safetensors"):
        (folder / name).unlink()
    for later in ("checkpoint-8", "checkpoint-10"):
        shutil.rmtree(folder / later, ignore_errors=True)
    main(sampled)
    plain, again = load_file(tmp_path / "plain" / "model.safetensors"), load_file(folder / "model.safetensors")
    for name, weight in expected.items():
        assert torch.equal(weight, plain[name]) and torch.equal(weight, again[name]), name


def test_text_loss_is_kept_over_interruptions(
    workshop: Any, lists: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    main = runpy.run_path(str(ROOT / "recipes" / "train_generation.py"))["main"]
    output = tmp_path / "lm"
    (tmp_path / "held.txt").write_text("a line\n\nanother number")
    command = arguments(workshop, lists, output, "--max_steps", "6", "--save_steps", "4", "--text_loss")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):  # killed before the manifest
        patch.setattr("alm.training.run.write_manifest", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        main([*command, str(tmp_path / "held.txt")])
    begun = json.loads((output / "sequences" / "text_loss.json").read_text())
    assert begun["before"]["loss"] > begun["after"]["loss"] > 0
    later = tmp_path / "later"
    shutil.copytree(output, later)
    shutil.rmtree(later / "checkpoint-6")
    for folder, name in ((output, "with all its steps"), (later, "from step 4")):
        command[command.index("--output_dir") + 1] = str(folder)
        with pytest.raises(DataError, match="holds other text"):
            main([*command, lists["text"]])
        main([*command, str(tmp_path / "held.txt")])
        assert json.loads((folder / "manifest.json").read_text())["text_loss"] == begun, name
        assert f"{begun['tokens']} tokens of {tmp_path / 'held.txt'}" in capsys.readouterr().out
        log = [json.loads(line) for line in (folder / "training_log.jsonl").read_text().splitlines()]
        assert [line["text_loss"] for line in log if "text_loss" in line] == [
            begun[when]["loss"] for when in ("before", "after")
        ]
    main([*command[:-1], "--dry_run", "--text_loss", f"text={tmp_path / 'held.txt'}"])
    assert re.search(r"text loss +\d+ tokens of text=", capsys.readouterr().out)


def test_epochs_become_steps(workshop: Any, lists: dict[str, str], tmp_path: Path, capsys: Any) -> None:
    main = runpy.run_path(str(ROOT / "recipes" / "train_generation.py"))["main"]
    main(arguments(workshop, lists, tmp_path / "lm", "--dry_run"))
    out = capsys.readouterr().out
    passes = float(re.search(r"about ([\d.]+) passes", out)[1])
    assert 3 <= passes < 4
    assert re.search(r"folder \w+ make_sound", out) and not (tmp_path / "lm").exists()
    main(arguments(workshop, lists, tmp_path / "lm", "--preview", "4"))
    out = capsys.readouterr().out
    assert out.count("⟦") == 4 and "(clip " in out


def test_data_sets_of_a_command_line(lists: dict[str, str], tmp_path: Path) -> None:
    usual = {CAPTION: ("describe",), TRANSCRIPT: ("speak", "transcribe")}
    made = data_sets([f"{lists[TRANSCRIPT]},weight=3", f"{lists[CAPTION]},tasks=make_sound,weight=1"], usual, 0.1)
    assert [(one.task, one.weight) for one in made] == [("speak", 1.5), ("transcribe", 1.5), ("make_sound", 1.0)]
    assert len(list(made[0].read(ReadReport("x")))) == 6
    assert [one.task for one in data_sets([f"musicqa={tmp_path}/x.json"], usual, 0.1)] == ["as_it_is"]
    with pytest.raises(DataError, match="no task is called 'sing'"):
        data_sets([f"{lists[CAPTION]},tasks=sing"], usual, 0.1)
    with pytest.raises(DataError, match="weight must be a number, got 'much'"):
        data_sets([f"{lists[CAPTION]},weight=much"], usual, 0.1)
    with pytest.raises(ConfigFileError, match="a weight, or none"):
        data_sets([f"{lists[CAPTION]},weight=2", lists[TRANSCRIPT]], usual, 0.1)
    with pytest.raises(DataError, match="no data set is called"):
        data_sets(["nothing=x"], usual, 0.1)
    for text in ("weight=0", "weight=-1", "weight=nan"):
        with pytest.raises(DataError, match="weight must be a number above 0"):
            data_sets([f"{lists[CAPTION]},{text}"], usual, 0.1)
    for share in (0.0, 1.0, 1.5):
        with pytest.raises(ConfigFileError, match="replay_share"):
            replay_set(lists["text"], share)
    assert replay_set(lists["text"], 0.2).share == replay_set(f"text={lists['text']}", 0.2).share == 0.2
