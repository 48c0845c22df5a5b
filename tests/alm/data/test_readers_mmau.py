"""Every published form of MMAU's files gives the same questions."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from alm.data import mmau
from alm.data.example import DataError

ROWS: list[dict[str, Any]] = [
    {
        "id": "3f-1",
        "audio_id": "./test-mini-audios/3f-1.wav",
        "question": "Who speaks? ",
        "choices": ["Man", "A woman ", "Robot"],
        "answer": "A woman ",
        "dataset": "AudioSet",
        "task": "speech",
        "split": "test-mini",
        "category": '["Reasoning"]',
        "sub-category": "Acoustic Source Inference",
        "difficulty": "Medium",
    },
    {
        "id": "3f-2",
        "audio_id": "./test-mini-audios/3f-2.wav",
        "question": "Which chord?",
        "choices": ["D#:maj/1", "N"],
        "answer": "N",
        "dataset": "MusicNet",
        "task": "music",
        "split": "test-mini",
        "category": "Information Extraction",
        "sub-category": "Harmony",
        "difficulty": "hard",
    },
]


def lettered(texts: list[str]) -> list[str]:
    return [f"({letter}) {text}" for letter, text in zip("ABCDEFGH", texts, strict=False)]


def official_hub(row: dict[str, Any], as_text: bool) -> dict[str, Any]:
    """A row of gamma-lab-umd's copy; as AudioLLMs' where `other_attributes` is no text."""
    names = ("id", "dataset", "task", "split", "category", "sub-category", "difficulty")
    other = {name: row[name] for name in names}
    return {
        "context": {"bytes": row["id"].encode(), "path": None},
        "instruction": row["question"],
        "choices": lettered(row["choices"]),
        "answer": lettered(row["choices"])[row["choices"].index(row["answer"])],
        "other_attributes": json.dumps(other) if as_text else other,
    }


def lmms(row: dict[str, Any]) -> dict[str, Any]:
    plain = {name: value for name, value in row.items() if name not in ("choices", "audio_id")}
    audio = {"bytes": row["id"].encode(), "path": f"{row['id']}.wav"}
    return {**plain, "choices": json.dumps(row["choices"]), "audio": audio}


def write(folder: Path, form: str) -> Path:
    if form == "list":
        (folder / "mmau.json").write_text(json.dumps(ROWS, indent=2))
        return folder / "mmau.json"
    if form == "lines":
        (folder / "mmau.json").write_text("\n".join(map(json.dumps, ROWS)))
        return folder / "mmau.json"
    rows = {
        "official": [official_hub(row, True) for row in ROWS],
        "audiollms": [official_hub(row, False) for row in ROWS],
        "lmms": [lmms(row) for row in ROWS],
    }[form]
    (folder / "data").mkdir()
    for number, row in enumerate(rows):  # two shards
        pq.write_table(pa.Table.from_pylist([row]), folder / "data" / f"test-{number:05}-of-00002.parquet")
    return folder / "data"


@pytest.mark.parametrize("form", ["list", "lines", "official", "audiollms", "lmms"])
def test_every_form_gives_the_same_questions(tmp_path: Path, form: str) -> None:
    data = mmau.read(write(tmp_path, form), tmp_path / "clips")
    assert [item.id for item in data.items] == ["3f-1", "3f-2"] and not data.withheld
    first, second = data.items
    assert (first.question, second.question) == ("Who speaks? ", "Which chord?")
    prefixed = form in ("official", "audiollms")
    assert list(first.choices) == (lettered(ROWS[0]["choices"]) if prefixed else ROWS[0]["choices"])  # kept bit for bit
    assert first.answer == ("(B) A woman " if prefixed else "A woman ")
    assert first.groups == {
        "modality": "speech",
        "category": "Reasoning",
        "sub_category": "Acoustic Source Inference",
        "difficulty": "medium",
    }
    if form not in ("list", "lines"):
        assert (tmp_path / "clips" / first.audio_id).read_bytes() == b"3f-1"
    assert len(data.sha256) == 64
    assert mmau.read(tmp_path / ("data" if (tmp_path / "data").exists() else "mmau.json"), tmp_path / "clips") == data


def test_one_parquet_file_is_enough(tmp_path: Path) -> None:
    write(tmp_path, "lmms")
    data = mmau.read(tmp_path / "data" / "test-00001-of-00002.parquet", tmp_path)
    assert [item.id for item in data.items] == ["3f-2"]


def test_withheld_answers(tmp_path: Path) -> None:
    path = tmp_path / "test.json"
    path.write_text(json.dumps([{**row, "answer": ""} for row in ROWS]))
    data = mmau.read(path, tmp_path)
    assert data.withheld and data.rows[0] == {**ROWS[0], "answer": ""}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([ROWS[0], ROWS[0]], "row 2.*occurs twice"),
        ([ROWS[0], {**ROWS[0], "id": "other", "answer": ""}], "1 of 2 answers are empty"),
        ([{**ROWS[0], "choices": "Man"}], "row 1.*not a JSON list"),
        ([{**ROWS[0], "question": None}], "row 1.*'question' must be text"),
        ([], "no questions"),
    ],
)
def test_errors_name_the_row(tmp_path: Path, rows: list[dict[str, Any]], message: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(json.dumps(rows))
    with pytest.raises(DataError, match=message):
        mmau.read(path, tmp_path)


def test_another_file_or_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_text("no")
    with pytest.raises(DataError, match=r"x\.parquet: cannot be read as Parquet"):
        mmau.read(tmp_path / "x.parquet", tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="without Parquet files"):
        mmau.read(tmp_path / "empty", tmp_path)
