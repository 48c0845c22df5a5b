import hashlib
import json
from pathlib import Path

import pytest

from alm.data import mmar
from alm.data.choice_rows import find_audio
from alm.data.example import DataError

ROW = {
    "id": "-k_00-00-01_00-00-09",
    "audio_path": "./audio/-k_00-00-01_00-00-09.wav",
    "question": "Which animal?\n",
    "choices": ["dog", "Cat ", ""],
    "answer": "Cat ",
    "modality": "sound",
    "category": "Perception Layer",
    "sub-category": "Counting",
    "language": None,
    "rubric": [{"choices": [0, 1]}],
}


def write(path: Path, rows: list[dict], lines: bool) -> Path:
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows) if lines else json.dumps(rows, indent=1)
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("lines", [True, False])
def test_both_releases_read_alike_with_every_text_as_it_is(tmp_path: Path, lines: bool) -> None:
    path = write(
        tmp_path / "MMAR-meta.json", [ROW, {**ROW, "id": "B", "language": "zh|en", "answer": "狗\u2028"}], lines
    )
    data = mmar.read(path)
    first, second = data.items
    assert (first.question, first.choices, first.answer) == ("Which animal?\n", ("dog", "Cat ", ""), "Cat ")
    assert first.language is None and second.language == "zh|en" and second.answer == "狗\u2028"
    assert first.groups == {"modality": "sound", "category": "Perception Layer", "sub_category": "Counting"}
    assert data.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_dirt_of_mirrors_is_accepted(tmp_path: Path) -> None:
    row = {key: value for key, value in ROW.items() if key not in ("sub-category", "modality")}
    row |= {"choices": json.dumps(["(A) dog", "(B) cat"]), "answer": "B", "subcategory": "Counting"}
    (item,) = mmar.read(write(tmp_path / "m.jsonl", [row], True)).items
    assert item.choices == ("(A) dog", "(B) cat")
    assert (item.sub_category, item.modality) == ("Counting", "none")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([ROW, {**ROW, "id": "B", "choices": []}], "row 2.*at least one"),
        ([{**ROW, "choices": "dog"}], "row 1.*not a JSON list"),
        ([{**ROW, "choices": ["dog", 3]}], "row 1.*list of texts"),
        ([{**ROW, "answer": None}], "row 1.*'answer' must be text"),
        ([ROW, {**ROW, "id": "B", "answer": " "}], "row 2.*'answer' is empty"),
        ([ROW, ROW], "row 2.*occurs twice"),
        ([], "no questions"),
    ],
)
def test_broken_rows_name_file_and_row(tmp_path: Path, rows: list[dict], message: str) -> None:
    path = write(tmp_path / "m.json", rows, False)
    with pytest.raises(DataError, match=message) as caught:
        mmar.read(path)
    assert str(path) in str(caught.value)


def test_a_torn_line_is_an_error(tmp_path: Path) -> None:
    path = write(tmp_path / "m.jsonl", [ROW], True)
    path.write_text(path.read_text() + '{"id": "x', encoding="utf-8")
    with pytest.raises(DataError, match="line 2"):
        mmar.read(path)


def test_audio_is_found_from_either_folder(tmp_path: Path) -> None:
    clip = tmp_path / "audio" / "a.wav"
    clip.parent.mkdir()
    clip.touch()
    assert find_audio("./audio/a.wav", tmp_path) == clip
    assert find_audio("./audio/a.wav", tmp_path / "audio") == clip
    assert find_audio("./audio/b.wav", tmp_path / "audio") == tmp_path / "audio" / "b.wav"
