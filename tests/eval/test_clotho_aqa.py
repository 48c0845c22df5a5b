"""ClothoAQA's script: the four rules, yes-or-no questions by likelihood, stored answers; the released split where it is at hand."""

import csv
import json
import os
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from codec.audio import write_audio

ROOT = Path(__file__).parents[2]
REAL = Path(os.environ.get("CLOTHOAQA_METADATA", "clotho_aqa_test.csv"))
"""The released split: `CLOTHOAQA_METADATA=path/to/clotho_aqa_test.csv pytest tests/eval/test_clotho_aqa.py`."""
QUESTIONS = [  # clip, question, three answers with how sure each is
    ("rain .wav", "Is it wet?", [("yes", "yes"), ("yes ", "Yes"), ("yes", "yes")]),
    ("rain .wav", "Is it loud?", [("no", "yes"), ("no", "maybe"), ("yes", "yes")]),
    ("dog.wav", "What barks?", [("dog", "yes"), ("dog", "yes"), ("dog", "yes")]),
    ("dog.wav", "How many?", [("one", "yes"), ("two", "yes"), ("three", "yes")]),
    ("dog.wav", "Is it near?", [("no", "yes"), ("no", "yes"), ("no", "yes")]),
]


@pytest.fixture(scope="module")
def main() -> Callable[[list[str]], None]:
    return runpy.run_path(str(ROOT / "eval" / "clotho_aqa.py"))["main"]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    generator = np.random.default_rng(0)
    for name in ("rain .wav", "dog.wav"):
        write_audio(tmp_path / "audio_files" / name, generator.normal(0, 0.1, 5_000), 24_000)
    path = tmp_path / "clotho_aqa_test.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["file_name", "QuestionText", "answer", "confidence"])
        for name, question, answers in QUESTIONS:
            writer.writerows([name, question, *answer] for answer in answers)
    return path


def score(main: Callable, data: Path, folder: Path, said: dict[str, str], rule: str) -> dict[str, Any]:
    (folder / "p.json").write_text(json.dumps([{"id": i, "prediction": text} for i, text in said.items()]))
    output = folder / "r.json"
    main(["--predictions", str(folder / "p.json"), "--data", str(data), "--rule", rule, "--output", str(output)])
    return json.loads(output.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("rule", "kept", "right"), [("unanimous", 3, 2), ("binary", 3, 1), ("majority", 4, 2), ("lmms", 2, 1)]
)
def test_stored_answers_by_each_rule(
    main: Callable, data: Path, tmp_path: Path, rule: str, kept: int, right: int
) -> None:
    said = {"clotho_aqa_test:1": "Yes.", "clotho_aqa_test:4": "yes", "clotho_aqa_test:7": " DOG"}
    result = score(main, data, tmp_path, said, rule)
    assert result["benchmark"] == f"ClothoAQA ({rule})" and result["manifest"]["rule"] == rule
    found = result["scores"]["exact_match"]
    assert (found["n"], found["value"]) == (kept, pytest.approx(right / kept))
    assert {"kind", "annotators"} == result["groups"].keys()


def test_a_model_answers_openly_and_between_yes_and_no(
    main: Callable, checkpoint: Path, data: Path, tmp_path: Path
) -> None:
    for rule, scores in (
        ("majority", ["exact_match"]),
        ("binary", ["exact_match", "loglikelihood", "loglikelihood_mean", "letter"]),
    ):
        given = ["--model", checkpoint, "--data", data, "--rule", rule, "--output", tmp_path / "m.json"]
        main(list(map(str, given)))
        result = json.loads((tmp_path / "m.json").read_text(encoding="utf-8"))
        assert list(result["scores"]) == scores and result["manifest"]["prompt_id"] == "one-word"
        assert {"no_audio_exact_match", "shuffled_audio_exact_match"} <= result["controls"].keys()
    assert result["controls"]["chance"]["value"] == 0.5


@pytest.mark.skipif(not REAL.is_file(), reason="set CLOTHOAQA_METADATA to the released clotho_aqa_test.csv")
@pytest.mark.parametrize(("rule", "kept"), [("unanimous", 1312), ("binary", 1892), ("majority", 2476), ("lmms", 1442)])
def test_questions_kept_of_the_real_split(main: Callable, tmp_path: Path, rule: str, kept: int) -> None:
    result = score(main, REAL, tmp_path, {f"{REAL.stem}:{row}": "yes" for row in range(1, 8515)}, rule)
    assert result["scores"]["exact_match"]["n"] == kept and result["counts"]["missing"] == 0
