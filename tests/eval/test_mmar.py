"""The command that the reader types, on a tiny random model with a real (random) codec."""

import json
import os
import runpy
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "eval" / "mmar.py"
REAL = Path(os.environ.get("MMAR_METADATA", "MMAR-meta.jsonl"))
"""The released file, which is not ours to ship: `MMAR_METADATA=path/to/MMAR-meta.jsonl pytest tests/eval/test_mmar.py`."""


@pytest.fixture(scope="module")
def main() -> Callable[[list[str]], None]:
    return runpy.run_path(str(SCRIPT))["main"]


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def flags(checkpoint: Path, benchmark: Path, output: Path, *more: str) -> list[str]:
    given = ["--model", checkpoint, "--data", benchmark, "--output", output, "--max_new_tokens", 6, "--batch_size", 2]
    return [str(flag) for flag in (*given, *more)]


def test_a_model_is_scored_and_the_table_printed(
    main: Callable, checkpoint: Path, benchmark: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "runs" / "mmar.json"
    main(flags(checkpoint, benchmark, output, "--system", "tiny"))
    table = capsys.readouterr().out
    result = read(output)
    assert result["benchmark"] == "MMAR" and result["system"] == "tiny"
    assert list(result["scores"]) == ["official", "option", "loglikelihood", "loglikelihood_mean", "letter"]
    wanted = {"chance", "constant_position", "longest_choice", "no_audio_official", "shuffled_audio_loglikelihood"} | {
        "gain_over_shuffled_audio_letter",
        "gain_over_chance_official",
    }
    assert wanted <= result["controls"].keys()
    assert list(result["groups"]) == ["modality", "category", "sub_category"]
    assert result["counts"]["missing"] == 0 and {"unparsed", "truncated"} <= result["counts"].keys()
    assert {"weights", "vocabulary", "data_sha256", "prompt_id", "decoding", "code", "commit", "command"} <= result[
        "manifest"
    ].keys()
    rows = [json.loads(line) for line in (output.parent / result["items"]).read_text(encoding="utf-8").splitlines()]
    assert {row["id"] for row in rows} == {f"q{number}" for number in range(10)}
    assert max(len(line) for line in table.splitlines() if not line.startswith("result:")) <= 100
    assert "no audio" in table and "sub_category" in table

    # its own per-item file is a predictions file, and scores the same
    main(
        [
            "--predictions",
            str(output.parent / result["items"]),
            "--data",
            str(benchmark),
            "--output",
            str(tmp_path / "p.json"),
        ]
    )
    again = read(tmp_path / "p.json")
    assert {name: again["scores"][name] for name in ("official", "option")} == {
        name: result["scores"][name] for name in ("official", "option")
    }


def test_limit_and_switches(main: Callable, checkpoint: Path, benchmark: Path, tmp_path: Path) -> None:
    output = tmp_path / "few.json"
    main(flags(checkpoint, benchmark, output, "--limit", "3", "--no_generation", "--controls", "none"))
    result = read(output)
    assert list(result["scores"]) == ["loglikelihood", "loglikelihood_mean", "letter"]
    assert result["counts"]["items"] == 3 and "official" in result["unavailable"]
    assert not any(name.startswith("no_audio") for name in result["controls"])


def test_missing_audio_counts_as_wrong_up_to_the_limit(
    main: Callable, checkpoint: Path, benchmark: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "audio" / "q4.wav").unlink()
    output = tmp_path / "m.json"
    main(flags(checkpoint, benchmark, output, "--no_generation", "--no_letter"))
    assert read(output)["counts"]["missing"] == 1 and read(output)["scores"]["loglikelihood"]["n"] == 10
    assert "q4.wav" in capsys.readouterr().err
    (tmp_path / "audio" / "q5.wav").write_text("text named .wav")
    with pytest.raises(ValueError, match=r"2 of 10 clips are missing or unreadable"):
        main(flags(checkpoint, benchmark, output))


def test_stored_answers(main: Callable, benchmark: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [json.loads(line) for line in benchmark.read_text().splitlines()]
    answers = tmp_path / "somebody.json"
    answers.write_text(
        json.dumps([{"id": r["id"], "model_output": r["answer"]} for r in rows[1:]] + [{"id": "?", "prediction": "x"}])
    )
    main(["--predictions", str(answers), "--data", str(benchmark), "--output", str(tmp_path / "s.json")])
    result = read(tmp_path / "s.json")
    assert result["system"] == "somebody" and result["scores"]["official"]["value"] == 0.9
    assert (result["counts"]["missing"], result["counts"]["unknown_ids"]) == (1, 1)
    assert "1 missing" in capsys.readouterr().out
    answers.write_text(json.dumps([{"id": "?", "prediction": "x"}]))
    with pytest.raises(ValueError, match="none of its 1 answers belongs"):
        main(["--predictions", str(answers), "--data", str(benchmark), "--output", str(tmp_path / "s.json")])


def test_stored_answers_never_replace_rows_of_another_run(main: Callable, benchmark: Path, tmp_path: Path) -> None:
    items = tmp_path / "qwen3-0.6b.items.jsonl"
    items.write_text(json.dumps({"id": "q1", "prediction": "a dog"}) + "\n")
    scoring = ["--predictions", str(items), "--data", str(benchmark), "--output"]
    with pytest.raises(ValueError, match="choose another --output"):
        main([*scoring, str(tmp_path / "qwen3-0.6b")])
    main([*scoring, str(tmp_path / "other.json")])
    before = (tmp_path / "other.items.jsonl").read_bytes()
    main([*scoring, str(tmp_path / "other.json")])
    assert (tmp_path / "other.items.jsonl.old").read_bytes() == before


def test_dry_run_needs_neither_model_nor_audio(
    main: Callable, benchmark: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(flags(tmp_path / "nowhere", benchmark, tmp_path / "x.json", "--dry_run"))
    out = capsys.readouterr().out
    assert "10 questions, 10 of 10 clips found" in out and "Select one option from the provided choices:" in out
    assert not (tmp_path / "x.json").exists()


@pytest.mark.parametrize(
    "wrong",
    [[], ["--model", "x", "--predictions", "y"], ["--model", "x", "--limit", "0"], ["--model", "x", "--modle", "y"]],
)
def test_wrong_flags_end_with_usage(main: Callable, wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(wrong)
    assert caught.value.code == 2 and "error" in capsys.readouterr().err


def test_without_data_the_way_to_get_it_is_told(
    main: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *a, **k: None)
    with pytest.raises(ValueError, match="hf download BoJack/MMAR"):
        main(["--predictions", str(tmp_path / "p.json")])


@pytest.mark.slow
def test_killed_at_any_time_a_run_resumes_to_the_same_files(checkpoint: Path, benchmark: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), *flags(checkpoint, benchmark, Path("r.json"), "--resume")]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    whole.mkdir()
    killed.mkdir()
    subprocess.run(command, cwd=whole, check=True, capture_output=True)
    items = killed / "r.items.jsonl"
    process = subprocess.Popen(command, cwd=killed, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and not (items.exists() and items.read_bytes().count(b"\n") >= 3):
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL and not (killed / "r.json").exists()
    kept = items.read_bytes()
    assert 3 <= kept.count(b"\n") < 10
    done = subprocess.run(command, cwd=killed, check=True, capture_output=True, text=True)
    taken = int(done.stderr.split(" rows taken over")[0].split()[-1])
    assert taken == kept.count(b"\n")  # taken over, not computed again
    for name in ("r.json", "r.items.jsonl"):  # byte for byte: nothing in them depends on the time or on the kill
        assert (killed / name).read_bytes() == (whole / name).read_bytes()


def test_other_weights_or_settings_take_over_no_row(
    main: Callable, checkpoint: Path, benchmark: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = flags(checkpoint, benchmark, tmp_path / "r.json", "--resume", "--no_generation", "--controls", "none")
    taken = []
    other = tmp_path / "other"
    shutil.copytree(checkpoint, other)
    weights = load_file(other / "model.safetensors")
    save_file(
        {**weights, "model.norm.weight": weights["model.norm.weight"] * 1.001},
        other / "model.safetensors",
        {"format": "pt"},
    )
    again = [str(other) if flag == str(checkpoint) else flag for flag in given]
    for run in (given, given, [*given, "--prompt", "audio-flamingo"], given, again):
        main(run)
        taken.append(capsys.readouterr().err.split(" rows taken over, ")[0].split()[-1])
    assert taken == ["0", "10", "0", "0", "0"]


def test_another_clip_under_the_same_name_is_heard_anew(
    main: Callable, checkpoint: Path, benchmark: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "benchmark"
    shutil.copytree(benchmark.parent, folder)
    given = flags(checkpoint, folder / benchmark.name, tmp_path / "r.json", "--resume")
    main(given)
    first, *_, other = sorted(folder.rglob("*.wav"))
    shutil.copy(other, first)
    capsys.readouterr()
    main(given)
    taken = int(capsys.readouterr().err.split(" rows taken over, ")[0].split()[-1])
    assert 0 < taken < 10
    main(flags(checkpoint, folder / benchmark.name, tmp_path / "afresh.json"))
    resumed, afresh = (sorted((tmp_path / f"{name}.items.jsonl").read_text().splitlines()) for name in ("r", "afresh"))
    assert resumed == afresh


def test_the_result_never_replaces_what_is_read(
    main: Callable, benchmark: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = tmp_path / "answers.json"
    answers.write_text(json.dumps([{"id": "q1", "prediction": "a dog"}]))
    before = answers.read_bytes(), benchmark.read_bytes()
    for output, why in ((answers, "would replace"), (benchmark, "would replace"), (tmp_path, "is a folder")):
        with pytest.raises(SystemExit):
            main(["--predictions", str(answers), "--data", str(benchmark), "--output", str(output)])
        assert why in capsys.readouterr().err
    assert (answers.read_bytes(), benchmark.read_bytes()) == before


@pytest.mark.slow
def test_help_is_quick_and_errors_are_one_line() -> None:
    start = os.times()
    done = subprocess.run([sys.executable, str(SCRIPT), "--help"], capture_output=True, text=True, check=True)
    spent = os.times()
    assert "--predictions" in done.stdout
    assert spent.children_user - start.children_user < 5  # seconds of CPU; importing torch takes more
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--predictions", "p", "--data", "none.json"], capture_output=True, text=True
    )
    assert done.returncode == 1 and done.stderr.startswith("error: none.json") and len(done.stderr.splitlines()) == 1


@pytest.mark.skipif(not REAL.is_file(), reason="set MMAR_METADATA to the released MMAR-meta.jsonl")
@pytest.mark.parametrize(
    ("form", "right"),
    [("{text}", 1000), ("", 0), ("({letter}) {text}", 985), ("{letter}. {text}", 985), ("The answer is {text}.", 910),
     ("<answer>{text}</answer>", 996), ("{letter}", 0), ("{next}", 10), ("({other}) {text}", 981), ("{all}", 12)],
)  # fmt: skip
def test_official_counts_on_the_real_file(main: Callable, tmp_path: Path, form: str, right: int) -> None:
    rows = [json.loads(line) for line in REAL.read_text(encoding="utf-8").split("\n") if line]
    said = []
    for row in rows:
        gold, count = row["choices"].index(row["answer"]), len(row["choices"])
        other = (gold + 1) % count
        values = {
            "text": row["answer"],
            "letter": "ABCDEF"[gold],
            "other": "ABCDEF"[other],
            "next": row["choices"][other],
        }
        said.append({"id": row["id"], "prediction": form.format(**values, all=" ".join(row["choices"]))})
    (tmp_path / "p.json").write_text(json.dumps(said))
    main(["--predictions", str(tmp_path / "p.json"), "--data", str(REAL), "--output", str(tmp_path / "r.json")])
    result = read(tmp_path / "r.json")
    assert round(1000 * result["scores"]["official"]["value"]) == right
    controls = {name: round(1000 * score["value"]) for name, score in result["controls"].items()}
    assert (controls["chance"], controls["constant_position"]) == (293, 302) and result["manifest"][
        "constant_position"
    ] == 2
