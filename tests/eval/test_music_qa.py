"""MusicQA's script on stored answers and on a tiny model; the released split where it is at hand."""

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
REAL = Path(os.environ.get("MUSICQA_METADATA", "EvalMusicQA.json"))
"""The released split: `MUSICQA_METADATA=path/to/EvalMusicQA.json pytest tests/eval/test_music_qa.py`."""
ASKED = ["Describe the audio", "What is the mood? ", "Which tags fit?"]


@pytest.fixture(scope="module")
def main() -> Callable[[list[str]], None]:
    return runpy.run_path(str(ROOT / "eval" / "music_qa.py"))["main"]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    generator, rows = np.random.default_rng(0), []
    for number in range(3):
        write_audio(tmp_path / "audios" / f"{number}.wav", generator.normal(0, 0.1, 5_000), 24_000)
        for text in (ASKED[0], ASKED[number]) if number else ASKED[:1]:
            turns = [{"from": "human", "value": text}, {"from": "gpt", "value": f"A calm song of {text} "}]
            rows.append({"audio_name": f"{number}.wav", "conversation": turns})
    (tmp_path / "EvalMusicQA.json").write_text(json.dumps(rows))
    return tmp_path / "EvalMusicQA.json"


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def test_stored_answers(main: Callable, data: Path, tmp_path: Path) -> None:
    said = [
        {"id": "EvalMusicQA:1", "prediction": "a calm song of describe the audio."},
        {"id": "EvalMusicQA:2", "prediction": "x"},
    ]
    (tmp_path / "p.json").write_text(json.dumps(said))
    main(["--predictions", str(tmp_path / "p.json"), "--data", str(data), "--output", str(tmp_path / "r.json")])
    result = read(tmp_path / "r.json")
    assert result["scores"]["exact_match"] | {"low": 0, "high": 0} == {"value": 0.2, "low": 0, "high": 0, "n": 5}
    assert result["counts"]["missing"] == 3 and "bertscore_recall" in result["unavailable"]
    assert list(result["groups"]["question"]) == ["Describe the audio", "other"]
    assert result["groups"]["names_tags"]["true"]["exact_match"]["n"] == 1


def test_a_model(main: Callable, checkpoint: Path, data: Path, tmp_path: Path) -> None:
    given = ["--model", checkpoint, "--data", data, "--output", tmp_path / "m.json", "--max_new_tokens", 4]
    main(list(map(str, given)))
    result = read(tmp_path / "m.json")
    assert "shuffled_audio_exact_match" in result["controls"] and "open" in result["unavailable"]["loglikelihood"]
    assert result["manifest"]["constant_answer"]
    with pytest.raises(ValueError, match="no_generation"):
        main([*map(str, given), "--no_generation"])


@pytest.mark.skipif(not REAL.is_file(), reason="set MUSICQA_METADATA to the released EvalMusicQA.json")
def test_the_real_split_is_right_by_its_own_answers(main: Callable, tmp_path: Path) -> None:
    rows = read(REAL)
    gold = [
        {"id": f"{REAL.stem}:{n}", "prediction": row["conversation"][1]["value"]} for n, row in enumerate(rows, start=1)
    ]
    (tmp_path / "p.json").write_text(json.dumps(gold))
    main(["--predictions", str(tmp_path / "p.json"), "--data", str(REAL), "--output", str(tmp_path / "r.json")])
    result = read(tmp_path / "r.json")
    assert result["scores"]["exact_match"]["n"] == 5040
    assert all(score["value"] > 0.99 for score in result["scores"].values()), result["scores"]
    assert len(result["groups"]["question"]) == 5 and result["groups"]["names_tags"]["true"]["exact_match"]["n"] == 163
