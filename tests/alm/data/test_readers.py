"""Laws that hold for every reader, on small files in the exact official formats (`conftest.py`)."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from alm.data.catalogue import CATALOGUE, Source, read_source
from alm.data.example import CAPTION, TRANSCRIPT, DataError, Example, ReadReport

Form = tuple[Callable[[Path, Sequence[tuple[str, str]]], str], Sequence[str]]


def read(source: str, max_missing: float | None = 0.1) -> tuple[list[Example], ReadReport]:
    parsed = Source.parse(source)
    report = ReadReport(parsed.name)
    return list(read_source(parsed, report, max_missing)), report


def audio_of(example: Example) -> bytes:
    (item,) = example.audio_items()
    return item["bytes"] if "bytes" in item else Path(item["path"]).read_bytes()


def said(example: Example) -> str:
    return example.messages[-1]["content"][0]["text"]


def test_names_survive(any_form: Form, tmp_path: Path) -> None:
    write, names = any_form
    texts = {name: f"TEXT {number}" for number, name in enumerate(names)}
    examples, report = read(write(tmp_path, list(texts.items())))
    assert {audio_of(example).decode(): said(example) for example in examples} == texts
    assert report.rows == report.examples == len(names)
    assert not report.dropped and not report.missing_audio
    assert len({example.id for example in examples}) == len(names)
    for example in examples:
        assert len(example.audio_paths()) == ("bytes" not in example.audio_items()[0])


def test_nothing_of_a_text_is_stripped_or_altered(any_form: Form, tmp_path: Path) -> None:
    write, names = any_form
    text = "  A “dog”  barks, &amp; 狗\u2028吠える …"
    ((example,), report) = read(write(tmp_path, [(names[0], text)]))
    assert said(example) == text and report.examples == 1


def test_the_form_is_one(any_form: Form, tmp_path: Path) -> None:
    write, names = any_form
    source = write(tmp_path, [(name, "text") for name in names])
    for example in read(source)[0]:
        assert [message["role"] for message in example.messages] == ["user", "assistant"]
        assert example.messages[0]["content"][0]["type"] == "audio"
        kind = CATALOGUE[Source.parse(source).name].kind
        assert example.meta.get("kind", "questions") in (kind, TRANSCRIPT, CAPTION)
        assert example.source == Source.parse(source).name


def test_missing_audio_is_counted_then_an_error(form_on_disk: Form, tmp_path: Path) -> None:
    write, names = form_on_disk
    source = write(tmp_path, [(name, "text") for name in names])
    lost = next(
        path for path in sorted(tmp_path.rglob("*")) if path.is_file() and path.read_bytes() == names[0].encode()
    )
    lost.unlink()
    examples, report = read(source, max_missing=None)
    assert len(examples) == len(names) - 1
    assert dict(report.dropped) == {"audio file missing": 1} and len(report.missing_audio) == 1
    assert len(read(source, max_missing=0.5)[0]) == len(names) - 1
    with pytest.raises(DataError, match=rf"1 of {len(names)} examples lack their audio.*--max_missing"):
        read(source, max_missing=0.05)


def test_a_wrong_folder_is_told_early(tmp_path: Path, write: dict[str, Any]) -> None:
    clips = [(f"{number:011d}", "text") for number in range(1500)]
    source = write["audiocaps"](tmp_path, clips[:1])
    write["write_csv"](
        tmp_path / "train.csv",
        [["audiocap_id", "youtube_id", "start_time", "caption"], *(["1", name, "0", text] for name, text in clips)],
    )
    with pytest.raises(DataError, match="1000 of 1000 examples lack"):
        read(f"{source},audio={tmp_path / 'nowhere'}")


ROWS = {
    "audiocaps": ("train.csv", "audiocap_id,youtube_id,start_time,caption\n1,-abcdefghij,0,rain\n{}\n", "1,x"),
    "audioset": ("balanced_train_segments.csv", '# a\n# b\n# c\n-abcdefghij, 0.000, 10.000, "/m/00"\n{}\n', "x, 1"),
    "clotho": (
        "clotho_captions_development.csv",
        "file_name,caption_1,caption_2,caption_3,caption_4,caption_5\na.wav,b,c,d,e,f\n{}\n",
        ",b,c,d,e,f",
    ),
    "clothoaqa": ("clotho_aqa_train.csv", "file_name,QuestionText,answer,confidence\na.wav,b,c,yes\n{}\n", ",b,c,yes"),
    "folder": ("metadata.csv", "file_name,caption\na.wav,b\n{}\n", ",b"),
    "ifcaps": ("metadata/a.jsonl", '{{"id": "-abcdefghij", "caption": "a", "time": "0-10"}}\n{}\n', '{"id": 3}'),
    "musicbench": (
        "MusicBench_train.json",
        '{{"location": "a.wav", "main_caption": "a"}}\n{}\n',
        '{"location": "b.wav"}',
    ),
    "musicqa": (
        "FinetuneMusicQA.json",
        '[{{"audio_name": "a", "conversation": [{{"from": "human", "value": "q"}}, {{"from": "gpt", "value": "a"}}]}}, {}]',
        '{"audio_name": "b"}',
    ),
    "wavcaps": (
        "json_files/SoundBible/sb_final.json",
        '{{"num_captions_per_audio": 1, "data": [{{"id": "1", "caption": "a"}}, {}]}}',
        '{"id": null, "caption": "b"}',
    ),
    "compa_r": ("c.json", '[{{"audio_id": "empty", "instruction": "i", "output": "o"}}, {}]', '{"audio_id": 4}'),
    "librispeech": ("19-198.trans.txt", "19-198-0000 WORDS\n{}\n", "19-198-0001"),
}


@pytest.mark.parametrize("name", ROWS)
def test_a_malformed_row_names_file_and_row(name: str, tmp_path: Path) -> None:
    file, text, broken = ROWS[name]
    path = tmp_path / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text.format(broken), encoding="utf-8")
    (tmp_path / "class_labels_indices.csv").write_text('index,mid,display_name\n0,/m/00,"Rain"\n', encoding="utf-8")
    given = {"wavcaps": tmp_path / "json_files", "compa_r": path}.get(name, tmp_path)
    options = ",part=SoundBible" if name == "wavcaps" else ""
    with pytest.raises(DataError, match=r"(row|line) 2") as caught:
        read(f"{name}={given}{options}", None)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("name", CATALOGUE)
def test_what_is_not_there_is_named(name: str, tmp_path: Path) -> None:
    for given in (tmp_path / "none.json", tmp_path):
        with pytest.raises(DataError) as caught:
            read(f"{name}={given}")
        assert str(tmp_path) in str(caught.value)


def test_empty_texts_are_dropped_and_counted(tmp_path: Path, any_form: Form) -> None:
    write, names = any_form
    examples, report = read(write(tmp_path, [(names[0], " "), (names[1], "text")]))
    assert len(examples) == 1
    assert [count for reason, count in report.dropped.items() if reason.startswith("empty")] == [1]


def test_examples_are_plain_data(any_form: Form, tmp_path: Path) -> None:
    write, names = any_form
    for example in read(write(tmp_path, [(name, "text") for name in names]))[0]:
        json.dumps(example.meta)
