"""What only one reader has: its options and its data set's own traps."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from alm.data.catalogue import Source, read_source
from alm.data.example import DataError, Example, ReadReport

Writers = dict[str, Any]


def read(source: str, max_missing: float | None = None) -> tuple[list[Example], ReadReport]:
    parsed = Source.parse(source)
    report = ReadReport(parsed.name)
    return list(read_source(parsed, report, max_missing)), report


def texts(examples: list[Example]) -> list[str]:
    return [example.messages[1]["content"][0]["text"] for example in examples]


def test_librispeech_in_small_letters_and_with_its_speaker(tmp_path: Path, write: Writers) -> None:
    source = write["librispeech"](tmp_path, [("19-198-0000", "NORTHANGER ABBEY"), ("19-198-0001", "THIS LITTLE WORK")])
    assert texts(read(source)[0]) == ["NORTHANGER ABBEY", "THIS LITTLE WORK"]
    examples, _ = read(f"{source},case=lower")
    assert texts(examples) == ["northanger abbey", "this little work"]
    assert examples[0].meta == {"kind": "transcript", "speaker": "19", "origins": ["librivox:19-198"]}


def test_libritts_texts_of_both_kinds(tmp_path: Path, write: Writers) -> None:
    source = write["libritts"](tmp_path, [("84_121123_000007_000001", "Doctor Brown paid two pounds.")])
    chapter = tmp_path / "dev-clean" / "84" / "121123"
    (chapter / "84_121123_000007_000001.original.txt").write_text("Dr. Brown paid £2.\n", encoding="utf-8")
    (chapter / "84_121123_000008_000000.wav").touch()
    (chapter / "84_121123.trans.tsv").write_text("of the archive, not a text\n", encoding="utf-8")
    (normalized,), report = read(source)
    assert texts([normalized]) == ["Doctor Brown paid two pounds."]
    assert dict(report.dropped) == {"no .normalized.txt": 1} and report.rows == 2
    assert texts(read(f"{source},text=original")[0]) == ["Dr. Brown paid £2."]


@pytest.mark.parametrize(
    "name",
    ["Y{}.wav", "{}.flac", "{}_30.wav", "Y{}_30_40.ogg", "{}_30000_40000.mp3", "{}_30000.opus"],
)
def test_audiocaps_spellings_of_file_names(name: str, tmp_path: Path, write: Writers) -> None:
    source = write["audiocaps"](tmp_path, [("-abcdefghij", "a"), ("Yabcdefghij", "b")])
    for clip in ("-abcdefghij", "Yabcdefghij"):
        (tmp_path / "train" / f"Y{clip}.wav").rename(tmp_path / "train" / name.format(clip))
    assert [Path(example.audio_paths()[0]).name for example in read(source)[0]] == [
        name.format("-abcdefghij"),
        name.format("Yabcdefghij"),
    ]


def test_audiocaps_five_captions_or_the_first(tmp_path: Path, write: Writers) -> None:
    source = write["audiocaps"](tmp_path, [("-abcdefghij", f"caption {n}") for n in range(5)] + [("bbcdefghijk", "x")])
    assert len(read(source)[0]) == 6
    examples, report = read(f"{source},captions=first")
    assert texts(examples) == ["caption 0", "x"]
    assert report.rows == 6 and report.dropped.total() == 4


def test_clotho_captions_and_entities_in_names(tmp_path: Path, write: Writers) -> None:
    source = write["clotho"](tmp_path, [("Cicadas &amp; waves", "cicadas &quot;sing&quot;")]).removesuffix(
        ",captions=first"
    )
    examples, report = read(source)
    assert (report.rows, len(examples)) == (1, 5) and len({example.id for example in examples}) == 5
    assert texts(examples)[0] == "cicadas &quot;sing&quot;"
    named = tmp_path / "development" / "Cicadas &amp; waves.wav"
    named.rename(named.with_name("Cicadas & waves.wav"))
    assert Path(read(source)[0][0].audio_paths()[0]).name == "Cicadas & waves.wav"


def test_ifcaps_dirt(tmp_path: Path, write: Writers) -> None:
    rows = [
        {"id": "-abcdefghij", "caption": "first", "time": "30.0-40.0"},
        {"id": "-abcdefghij", "caption": json.dumps({"caption": "inside", "tags": []}), "time": "30-40"},
        {"id": "-abcdefghij", "caption": "{not JSON", "time": "0.0-10.0"},
        {"id": "-abcdefghij", "caption": "which of the two?"},
        {"id": "bbcdefghijk", "caption": "the only clip of its video"},
        {"id": "bbcdefghijk_5000", "caption": "named in full"},
        {"id": "gone_efghijk", "caption": "its clip is gone", "time": "0-10"},
        {"id": "bbcdefghijk", "caption": " ", "time": "5-15"},
    ]
    write["write_lines"](tmp_path / "metadata" / "m.jsonl", rows)
    for name in ("-abcdefghij_000000", "-abcdefghij_030000", "bbcdefghijk_005000", "cbcdefghijk_000000"):
        write["put"](tmp_path / "audio" / f"{name}.mp3", name)
    examples, report = read(f"ifcaps={tmp_path}")
    assert [(example.id, Path(example.audio_paths()[0]).stem) for example in examples] == [
        ("m:3", "-abcdefghij_000000"),
        ("m:1", "-abcdefghij_030000"),
        ("m:2", "-abcdefghij_030000"),
        ("m:5", "bbcdefghijk_005000"),
        ("m:6", "bbcdefghijk_005000"),
    ]
    assert texts(examples)[:3] == ["{not JSON", "first", "inside"]
    assert report.rows == 8 and report.missing_audio == ["m:7"]
    assert report.dropped == Counter(
        {
            "empty caption": 1,
            "clip without a caption": 1,
            "audio file missing": 1,
            "no time, and which of the video's clips is meant is not known": 1,
        }
    )
    write["write_lines"](tmp_path / "metadata" / "m.jsonl", [{"id": "a", "caption": "c", "time": "soon"}])
    with pytest.raises(DataError, match="row 1: 'time' must be '<start>-<end>' in seconds, got 'soon'"):
        read(f"ifcaps={tmp_path}")


def test_a_torn_archive_of_ifcaps_is_an_error(tmp_path: Path, write: Writers) -> None:
    source = write["ifcaps_archive"](tmp_path, [("-abcdefghij", "x" * 50)])
    archive = tmp_path / "audio" / "audio_batch_000.tar.gz"
    archive.write_bytes(archive.read_bytes()[:-40])
    with pytest.raises(DataError, match=r"audio_batch_000\.tar\.gz: cannot be read.*is the download whole"):
        read(source)


def test_audioset_labels(tmp_path: Path, write: Writers) -> None:
    source = write["audioset"](tmp_path, [("-abcdefghij", "Speech"), ("bbcdefghijk", "Bark, and howl")])
    table = tmp_path / "balanced_train_segments.csv"
    table.write_text(table.read_text().replace('"/m/00"', '"/m/00,/m/01"'), encoding="utf-8")
    examples, _ = read(source)
    assert texts(examples) == ["Speech, Bark, and howl", "Bark, and howl"]
    assert examples[0].meta["labels"] == ["Speech", "Bark, and howl"]
    table.write_text(table.read_text() + 'cbcdefghijk, 0.000, 10.000, "/m/zz"\n', encoding="utf-8")
    with pytest.raises(DataError, match=r"row 3: label '/m/zz' is not in .*class_labels_indices.csv"):
        read(source)


def test_musicbench_captions(tmp_path: Path, write: Writers) -> None:
    source = write["musicbench"](tmp_path, [("-abcdefghij_1", "main")])
    assert texts(read(f"{source},captions=both")[0]) == ["main", "alt"]
    (example,) = read(f"{source},captions=alt")[0]
    assert example.id == "MusicBench_train:1:alt" and example.meta["key"] == ["C", "minor"]


def test_wavcaps_parts(tmp_path: Path, write: Writers) -> None:
    source = write["wavcaps"](tmp_path, [("7", "a bell")])
    assert [example.id for example in read(f"wavcaps={tmp_path / 'json_files/SoundBible/sb_final.json'}")[0]] == [
        "SoundBible:7"
    ]
    assert read(source)[0][0].meta["seconds"] == 2.5
    other = tmp_path / "mine.json"
    other.write_bytes((tmp_path / "json_files/SoundBible/sb_final.json").read_bytes())
    with pytest.raises(DataError, match=r"which part is it\? Add part="):
        read(f"wavcaps={other}")
    assert len(read(f"wavcaps={other},part=SoundBible,audio={tmp_path}")[0]) == 1


def test_columns_of_a_folder(tmp_path: Path, write: Writers) -> None:
    write["write_csv"](tmp_path / "t.csv", [["name", "said"], ["a.wav", "hello"]])
    (tmp_path / "a.wav").touch()
    (example,) = read(f"folder={tmp_path / 't.csv'},file_name=name,text=said,kind=transcript")[0]
    assert example.meta == {"kind": "transcript", "file_name": "a.wav"}
    with pytest.raises(DataError, match=r"'caption' must be text, got no such key .keys here: name, said"):
        read(f"folder={tmp_path / 't.csv'},file_name=name")
