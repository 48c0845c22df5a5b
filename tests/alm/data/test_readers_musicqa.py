import json
from pathlib import Path

import pytest

from alm.data import musicqa
from alm.data.example import DataError, ReadReport


def row(name: str = "a.wav", question: str = "What is heard? ", answer: str = "A flute.  ") -> dict:
    turns = [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
    return {"audio_name": name, "conversation": turns}


def write(folder: Path, rows: object, audio: tuple[str, ...] = ("a.wav",)) -> Path:
    for name in audio:
        (folder / name).touch()
    path = folder / "FinetuneMusicQA.json"
    path.write_text(rows if isinstance(rows, str) else json.dumps(rows), encoding="utf-8")
    return path


def test_reads_rows_in_order_and_drops_only_blanks_at_the_end_of_answers(tmp_path: Path) -> None:
    report = ReadReport("musicqa")
    path = write(tmp_path, [row(), row(question="  Tempo?", answer=" Slow\n")])
    first, second = musicqa.read(path, tmp_path, report)
    assert first.id == "FinetuneMusicQA:1" and second.id == "FinetuneMusicQA:2"
    assert first.messages[0]["content"] == [
        {"type": "audio", "path": str(tmp_path / "a.wav")},
        {"type": "text", "text": "What is heard? "},
    ]
    assert first.messages[1]["content"] == [{"type": "text", "text": "A flute."}]
    assert second.messages[1]["content"][0]["text"] == " Slow"
    assert (report.rows, report.examples, dict(report.dropped)) == (2, 2, {})


def test_several_turns_have_the_audio_once(tmp_path: Path) -> None:
    talk = row()
    talk["conversation"] += [{"from": "human", "value": "And now?"}, {"from": "gpt", "value": "Drums."}]
    (example,) = musicqa.read(write(tmp_path, [talk]), tmp_path)
    assert [message["role"] for message in example.messages] == ["user", "assistant"] * 2
    assert example.audio_paths() == [str(tmp_path / "a.wav")]


def test_names_are_never_stripped(tmp_path: Path) -> None:
    path = write(tmp_path, [row(name=" odd .wav")], audio=(" odd .wav",))
    assert [example.audio_paths() for example in musicqa.read(path, tmp_path)] == [[str(tmp_path / " odd .wav")]]


def test_empty_answers_and_missing_audio_are_counted(tmp_path: Path) -> None:
    report = ReadReport("musicqa")
    path = write(tmp_path, [row(), row(answer=" "), row(name="gone.wav")])
    assert len(list(musicqa.read(path, tmp_path, report, max_missing=None))) == 1
    assert dict(report.dropped) == {"empty question or answer": 1, "audio file missing": 1}
    with pytest.raises(DataError, match="1 of 2 examples lack"):
        list(musicqa.read(path, tmp_path, max_missing=0.1))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([row(), {"audio_name": "a.wav"}], "row 2.*conversation"),
        ([{"conversation": []}], "row 1.*audio_name"),
        ([row() | {"conversation": row()["conversation"][:1]}], "row 1.*in turn"),
        ([row() | {"conversation": row()["conversation"][::-1]}], "row 1.*turn 1.*human"),
        ([row(answer=None)], "row 1.*'value' must be text, got NoneType"),
        (["a.wav"], "row 1.*object expected"),
        ('[{"audio_name": ', "not valid JSON at line 1"),
    ],
)
def test_malformed_rows_name_file_and_row(tmp_path: Path, rows: object, message: str) -> None:
    path = write(tmp_path, rows)
    with pytest.raises(DataError, match=message) as caught:
        list(musicqa.read(path, tmp_path))
    assert str(path) in str(caught.value)


def test_missing_and_wrongly_encoded_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        list(musicqa.read(tmp_path / "none.json", tmp_path))
    path = write(tmp_path, [])
    path.write_bytes('["caf\xe9"]'.encode("latin-1"))
    with pytest.raises(DataError, match="not UTF-8"):
        list(musicqa.read(path, tmp_path))
