"""MMAU's script on a tiny model, on stored answers, on withheld answers, and on the released file where it is at hand."""

import json
import os
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from codec.audio import write_audio

ROOT = Path(__file__).parents[2]
REAL = Path(os.environ.get("MMAU_METADATA", "mmau-test-mini.json"))
"""The released file, which is not ours to ship: `MMAU_METADATA=path/to/mmau-test-mini.json pytest tests/eval/test_mmau.py`."""
CHOICES = [["Man", "A woman", "Robot"], ["yes", "no"], ["one", "two", "three", "four", "five", "six", "seven", "eight"]]


@pytest.fixture(scope="module")
def main() -> Callable[[list[str]], None]:
    return runpy.run_path(str(ROOT / "eval" / "mmau.py"))["main"]


@pytest.fixture
def rows(tmp_path: Path) -> list[dict[str, Any]]:
    """Six questions in the authors' form, with their clips."""
    generator, found = np.random.default_rng(0), []
    for number in range(6):
        write_audio(tmp_path / "clips" / f"u{number}.wav", generator.normal(0, 0.1, 4_000 + 900 * number), 24_000)
        choices = CHOICES[number % 3]
        found.append(
            {
                "id": f"u{number}",
                "audio_id": f"./clips/u{number}.wav",
                "question": "Which is heard?",
                "choices": choices,
                "answer": choices[number % len(choices)],
                "dataset": "made",
                "task": ["sound", "music", "speech"][number % 3],
                "split": "test-mini",
                "category": '["Reasoning"]' if number else "Reasoning",
                "sub-category": "Counting",
                "difficulty": ["easy", "hard"][number % 2],
            }
        )
    return found


def flags(checkpoint: Path, data: Path, output: Path, *more: str) -> list[str]:
    given = ["--model", checkpoint, "--data", data, "--output", output, "--max_new_tokens", 4, "--batch_size", 3]
    return [str(flag) for flag in (*given, *more)]


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def test_json_and_lettered_parquet_give_the_same_result(
    main: Callable, checkpoint: Path, rows: list[dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mini.json").write_text(json.dumps(rows))
    main(flags(checkpoint, tmp_path / "mini.json", tmp_path / "json.json", "--permutations", "cyclic", "--system", "s"))
    table = capsys.readouterr().out
    plain = read(tmp_path / "json.json")
    assert list(plain["groups"]) == ["modality", "category", "sub_category", "difficulty"]
    assert list(plain["groups"]["category"]) == ["Reasoning"]
    assert {"official_cyclic", "official_cyclic_all", "letter_cyclic", "loglikelihood_mean_cyclic"} <= plain[
        "scores"
    ].keys()
    assert "shuffled_audio_official" in table and max(map(len, table.split("\nresult:")[0].splitlines())) <= 100

    hub = [
        {
            "context": {"bytes": (tmp_path / "clips" / f"{row['id']}.wav").read_bytes(), "path": None},
            "instruction": row["question"],
            "choices": (texts := [f"({'ABCDEFGH'[n]}) {text}" for n, text in enumerate(row["choices"])]),
            "answer": texts[row["choices"].index(row["answer"])],
            "other_attributes": json.dumps(
                {k: row[k] for k in ("id", "task", "category", "sub-category", "difficulty")}
            ),
        }
        for row in rows
    ]
    pq.write_table(pa.Table.from_pylist(hub), tmp_path / "test-00000-of-00001.parquet")
    parquet = tmp_path / "test-00000-of-00001.parquet"
    main(flags(checkpoint, parquet, tmp_path / "hub.json", "--permutations", "cyclic", "--system", "s"))
    lettered = read(tmp_path / "hub.json")
    assert (tmp_path / "hub.audio" / "u0.wav").is_file()
    for part in ("groups", "controls"):
        assert plain[part].keys() == lettered[part].keys()
    for name in ("option", "loglikelihood", "letter", "option_cyclic", "letter_cyclic_all"):
        assert plain["scores"][name] == lettered["scores"][name]


def test_withheld_answers_give_a_submission_and_no_accuracy(
    main: Callable, checkpoint: Path, rows: list[dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    withheld = [{**row, "answer": ""} for row in rows]
    (tmp_path / "test.json").write_text(json.dumps(withheld))
    main(flags(checkpoint, tmp_path / "test.json", tmp_path / "r.json"))
    out, result = capsys.readouterr().out, read(tmp_path / "r.json")
    assert result["scores"] == result["controls"] == {} and "withheld" in result["unavailable"]["official"]
    assert result["counts"]["items"] == 6 and "No accuracy: the answers are withheld" in out and "MMAU-Eval" in out
    filled = read(tmp_path / "r.submission.json")
    said = {row["id"]: row["prediction"] for row in map(json.loads, (tmp_path / "r.items.jsonl").open())}
    for row, original in zip(filled, withheld, strict=True):
        assert row == {**original, "model_output": said[row["id"]], "model_prediction": said[row["id"]]}
    # the file is one of stored answers, too
    (tmp_path / "mini.json").write_text(json.dumps(rows))
    stored = ["--predictions", str(tmp_path / "r.submission.json"), "--data", str(tmp_path / "mini.json")]
    main([*stored, "--output", str(tmp_path / "s.json")])
    assert read(tmp_path / "s.json")["counts"]["missing"] == 0


def test_without_data_the_way_to_get_it_is_told(main: Callable) -> None:
    with pytest.raises(ValueError, match=r"github\.com/Sakshi113/MMAU"):
        main(["--predictions", "p.json"])


FORMS = {  # form of the answer: right of 1,000 in the authors' file, and in a copy with lettered choices and answers
    "{text}": (1000, 76),
    "({letter}) {text}": (967, 1000),
    "The answer is {text}.": (907, None),
    "<answer>{text}</answer>": (1000, None),
    "({letter})": (2, 2),
    "": (0, 0),
    "{all}": (1, None),
    "{next}": (8, None),
    "({other}) {next}": (None, 0),  # the next choice as the lettered copy has it
    "({other}) {text}": (983, 0),
}


@pytest.mark.skipif(not REAL.is_file(), reason="set MMAU_METADATA to the released mmau-test-mini.json")
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("prefixed", [False, True])
def test_official_counts_on_the_real_file(main: Callable, tmp_path: Path, form: str, prefixed: bool) -> None:
    right = FORMS[form][prefixed]
    if right is None:
        pytest.skip("not stated for this form")
    rows, said = json.loads(REAL.read_text(encoding="utf-8")), []
    for row in rows:
        gold, count = row["choices"].index(row["answer"]), len(row["choices"])
        other = (gold + 1) % count
        values = {"text": row["answer"], "letter": "ABCDEFGH"[gold], "other": "ABCDEFGH"[other]}
        said.append(
            {
                "id": row["id"],
                "model_output": form.format(**values, next=row["choices"][other], all=" ".join(row["choices"])),
            }
        )
        if prefixed:
            row["choices"] = [f"({'ABCDEFGH'[n]}) {text}" for n, text in enumerate(row["choices"])]
            row["answer"] = row["choices"][gold]
    (tmp_path / "data.json").write_text(json.dumps(rows))
    (tmp_path / "p.json").write_text(json.dumps(said))
    data = tmp_path / "data.json" if prefixed else REAL
    main(["--predictions", str(tmp_path / "p.json"), "--data", str(data), "--output", str(tmp_path / "r.json")])
    result = read(tmp_path / "r.json")
    assert round(1000 * result["scores"]["official"]["value"]) == right
    controls = {name: round(1000 * score["value"]) for name, score in result["controls"].items()}
    assert (controls["chance"], controls["constant_position"]) == (255, 395)
    assert result["manifest"]["constant_position"] == 1
