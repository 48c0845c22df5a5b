"""`--lm_eval FOLDER`: benchmarks as tasks of lm-evaluation-harness, and its numbers beside ours (`make test-lm-eval`)."""

import csv
import json
import os
import runpy
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from alm.data.example import DataError
from codec.audio import write_audio

ROOT = Path(__file__).parents[2]
QUESTIONS = [  # choices and answer, with the dirt of released files
    (["a dog", "a cat", "a bell"], "a cat"),
    (["", "two", " two", "one"], "two"),
    (["(A) 雨", "(B) e\u0301", "(C) wind"], "(B) e\u0301"),
    (["rain", "the sea", "a roof", "wind"], "a roof"),
    (["yes", "no"], "perhaps"),
    (["three violins", "a violin"], "three violins"),
]
TASKS = {"mmar": "mmar", "mmau": "mmau", "clotho_aqa": "clothoaqa_unanimous"}
"""Script → tag of its tasks."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Script → its file: six questions in MMAR's form, one clip missing, the same in MMAU's, and two open ones in ClothoAQA's."""
    folder, generator = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    mmar, mmau = [], []
    for number, (choices, answer) in enumerate(QUESTIONS):
        clip, told = f"q{number}.wav", {"question": "Which is heard?", "choices": choices, "answer": answer}
        if number != 5:
            write_audio(folder / "clips" / clip, generator.normal(0, 0.1, 4_800 + 2_400 * number), 24_000)
        mmar.append({"id": f"q{number}", "audio_path": f"./clips/{clip}", "modality": "sound", **told})
        mmau.append({"id": f"u{number}", "audio_id": f"clips/q{number % 5}.wav", "task": "music", **told})
    (folder / "mmar.json").write_text(json.dumps(mmar))
    (folder / "mmau.json").write_text(json.dumps(mmau))
    with (folder / "clotho.csv").open("w", newline="", encoding="utf-8") as file:
        rows = [["q0.wav", "What barks?", "dog", "yes"]] * 3 + [["q1.wav", "How many?", "two", "yes"]] * 3
        csv.writer(file).writerows([["file_name", "QuestionText", "answer", "confidence"], *rows])
    return {"mmar": folder / "mmar.json", "mmau": folder / "mmau.json", "clotho_aqa": folder / "clotho.csv"}


@pytest.fixture(scope="module")
def model(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One that answers in text, as a trained one does: the harness cannot forbid audio tokens, and a random model says them."""
    folder = tmp_path_factory.mktemp("text_only") / "model"
    shutil.copytree(checkpoint, folder)
    first = json.loads((folder / "config.json").read_text())["audio_vocabulary"]["start_id"]
    weights = load_file(folder / "model.safetensors")
    weights["model.embed_tokens.weight"][first:] *= 0.05  # the head too: they are tied
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def run(script: str, model: Path, data: Path, *more: Any) -> None:
    given = [
        "--model",
        model,
        "--data",
        data,
        "--audio",
        data.parent / "clips",
        "--max_new_tokens",
        6,
        "--max_missing",
        0.2,
    ]
    runpy.run_path(str(ROOT / "eval" / f"{script}.py"))["main"]([str(flag) for flag in (*given, *more)])


@pytest.fixture(scope="module")
def tasks(model: Path, data: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All three benchmarks in one folder."""
    folder = tmp_path_factory.mktemp("tasks")
    for script, file in data.items():
        run(script, model, file, "--lm_eval", folder)
    return folder


@pytest.fixture(scope="module")
def harness(model: Path, tasks: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of what stock `lm_eval --model hf` makes of them, in a process of its own."""
    pytest.importorskip("lm_eval", reason="make test-lm-eval")
    output = tmp_path_factory.mktemp("harness")
    command = [sys.executable, "-m", "lm_eval", "--model", "hf", "--model_args", f"pretrained={model}"]
    command += ["--include_path", str(tasks), "--tasks", ",".join(TASKS.values()), "--device", "cpu"]
    command += ["--batch_size", "3", "--log_samples", "--output_path", str(output)]
    # from elsewhere, as a stranger runs it
    subprocess.run(command, check=True, cwd=output, env={**os.environ, "HF_HUB_OFFLINE": "1"})
    return output


def lines(path: Path) -> Iterator[dict[str, Any]]:
    return map(json.loads, path.read_text(encoding="utf-8").splitlines())


@pytest.mark.parametrize("script", TASKS)
def test_the_harness_computes_our_numbers(
    harness: Path, model: Path, data: dict[str, Path], tasks: Path, tmp_path: Path, script: str
) -> None:
    run(script, model, data[script], "--output", tmp_path / "ours.json", "--batch_size", 2)
    ours = json.loads((tmp_path / "ours.json").read_text(encoding="utf-8"))
    rows = {row["id"]: row for row in lines(tmp_path / "ours.items.jsonl")}
    (file,) = harness.rglob("results_*.json")
    theirs = json.loads(file.read_text(encoding="utf-8"))["results"]
    sums = runpy.run_path(str(tasks / "utils.py"))["choice_sums"]
    names, compared = set(), 0
    for name in (name for name in theirs if name.startswith(TASKS[script] + "_")):
        condition, kind = name.removeprefix(TASKS[script]).rpartition("_")[::2]
        condition = condition.strip("_")
        for metric, value in theirs[name].items():
            if metric.endswith(",none") and "stderr" not in metric:
                score = metric.removesuffix(",none")
                names.add("_".join(filter(None, (condition, score))))
                found = ours["controls"][f"{condition}_{score}"] if condition else ours["scores"][score]
                assert value == pytest.approx(found["value"], abs=1e-12), (name, score)
        (logged,) = harness.rglob(f"samples_{name}_2*.jsonl")
        for sample in lines(logged):
            answer = rows[sample["doc"]["id"]][condition] if condition else rows[sample["doc"]["id"]]
            if sample["doc"]["missing"]:
                assert answer["generated"] is None
            elif kind == "generation":
                assert sample["resps"] == [[answer["generated"]]]
            else:
                scored = answer["letters" if kind == "letter" else "loglikelihood"]
                given = [(float(total), greedy) for ((total, greedy),) in sample["resps"]]
                assert sums(given) == pytest.approx([total for total in scored if total is not None], abs=1e-4)
            compared += 1
    wanted = set(ours["scores"]) | {n for n in ours["controls"] if n.startswith(("no_audio_", "shuffled_audio_"))}
    assert names == wanted and compared >= 2 * len(ours["scores"])


def test_what_is_missing_is_told_and_stays_in(
    model: Path, data: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run("mmar", model, data["mmar"], "--lm_eval", tmp_path / "tasks", "--controls", "none", "--no_letter")
    told = capsys.readouterr()
    assert "counted as wrong: question q5" in told.err and "6 questions in" in told.out
    assert f"lm_eval --model hf --model_args pretrained={model}," in told.out and told.out.endswith("--tasks mmar\n")
    names = sorted(path.stem for path in (tmp_path / "tasks").glob("*.yaml"))
    assert names == ["mmar_generation", "mmar_loglikelihood"]
    written = list(lines(tmp_path / "tasks" / "mmar_loglikelihood.jsonl"))
    assert [row["id"] for row in written if row["missing"]] == ["q5"] and len(written) == 6
    with pytest.raises(DataError, match="1 of 6 clips"):
        run("mmar", model, data["mmar"], "--lm_eval", tmp_path / "tasks", "--max_missing", 0)


def test_what_does_not_go_together_is_refused(
    model: Path, data: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        run("mmar", model, data["mmar"], "--lm_eval", tmp_path, "--permutations", "cyclic")
    assert "without --permutations" in capsys.readouterr().err
    run("mmar", tmp_path / "nowhere", data["mmar"], "--lm_eval", tmp_path / "tasks", "--dry_run")
    assert f"tasks to {tmp_path / 'tasks'}" in capsys.readouterr().out and not (tmp_path / "tasks").exists()
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(DataError, match="is an adapter"):
        run("mmar", tmp_path, data["mmar"], "--lm_eval", tmp_path / "tasks")
    withheld = [{**row, "answer": ""} for row in json.loads(data["mmau"].read_text())]
    (tmp_path / "test.json").write_text(json.dumps(withheld))
    with pytest.raises(DataError, match="withheld"):
        run("mmau", model, tmp_path / "test.json", "--lm_eval", tmp_path / "tasks")
