from pathlib import Path

import pytest

from alm.data import clothoaqa
from alm.data.example import DataError, ReadReport

HEADER = "file_name,QuestionText,answer,confidence\n"
ROWS = (
    'street .wav,"Is it raining, or not?",yes,yes\nstreet .wav,"Is it raining, or not?",yes,Maybe\n'
    'street .wav,"Is it raining, or not?",no,No\n'
    "a, b.wav,What barks?,dog,yes\n"
)
QUOTED = 'bell.wav,"Is that a ""bell""?",ding ,yes\nbell.wav,"Is that a ""bell""?",dong,yes\nbell.wav,"Is that a ""bell""?",clock,yes\n'


def write(folder: Path, text: str, audio: tuple[str, ...] = ("street .wav", "bell.wav")) -> Path:
    for name in audio:
        (folder / name).touch()
    path = folder / "clotho_aqa_train.csv"
    path.write_text(text, encoding="utf-8")
    return path


def text(example) -> tuple[str, str]:  # type: ignore[no-untyped-def]
    return example.messages[0]["content"][-1]["text"], example.messages[1]["content"][0]["text"]


def test_one_example_per_annotator(tmp_path: Path) -> None:
    report = ReadReport("clothoaqa")
    path = write(tmp_path, HEADER + ROWS.replace("a, b.wav", '"a, b.wav"'), ("street .wav", "a, b.wav"))
    examples = list(clothoaqa.read(path, tmp_path, report))
    assert [example.id for example in examples] == [f"clotho_aqa_train:{number}" for number in range(1, 5)]
    assert [text(example)[1] for example in examples] == ["yes", "yes", "no", "dog"]
    assert text(examples[0])[0] == "Is it raining, or not?"
    assert examples[0].audio_paths() == [str(tmp_path / "street .wav")]  # the blank before ".wav" is part of the name
    assert [example.meta["confidence"] for example in examples] == ["yes", "Maybe", "No", "yes"]
    assert report.rows == report.examples == 4


def test_majority_gives_one_example_per_agreed_question(tmp_path: Path) -> None:
    report = ReadReport("clothoaqa")
    path = write(tmp_path, HEADER + "".join(ROWS.splitlines(keepends=True)[:3]) + QUOTED)
    (example,) = clothoaqa.read(path, tmp_path, report, aggregate="majority")
    assert text(example) == ("Is it raining, or not?", "yes")
    assert example.meta["votes"] == {"yes": 2, "no": 1}
    assert (report.rows, dict(report.dropped)) == (6, {"left out by the rule 'majority'": 1})


def test_a_question_asked_twice_is_one_question(tmp_path: Path) -> None:
    path = write(tmp_path, HEADER + "bell.wav,Wet?,yes,yes\n" * 6)
    assert len(list(clothoaqa.read(path, tmp_path, aggregate="majority"))) == 1
    half = write(tmp_path, HEADER + "bell.wav,Wet?,yes,yes\n" * 3 + "bell.wav,Wet?,no,yes\n" * 3)
    assert list(clothoaqa.read(half, tmp_path, aggregate="majority")) == []


def test_blanks_quotes_and_a_byte_order_mark(tmp_path: Path) -> None:
    path = write(tmp_path, "\ufeff" + HEADER + QUOTED)
    assert text(next(iter(clothoaqa.read(path, tmp_path)))) == ('Is that a "bell"?', "ding")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (HEADER + "bell.wav,Wet?,yes,yes\nbell.wav,Wet?,yes\n", r"row 2 \(line 3\)"),
        (HEADER + "bell.wav,Wet?,yes,yes,more\n", "row 1"),
        (HEADER + ",Wet?,yes,yes\n", "row 1"),
        ("file,question\n", "columns file_name,QuestionText"),
        ("", "an empty file"),
        (HEADER + 'bell.wav,"Wet?,yes,yes\n', "line 2.*not valid CSV"),
    ],
)
def test_malformed_rows_name_file_and_row(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        list(clothoaqa.read(write(tmp_path, content), tmp_path))


def test_unknown_aggregate(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="'rows', 'unanimous', 'binary', 'majority', 'lmms', got 'most'"):
        clothoaqa.read(write(tmp_path, HEADER), tmp_path, aggregate="most")  # type: ignore[arg-type]
