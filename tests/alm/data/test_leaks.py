"""Test clips are kept out of training, whatever they are called there; forms of test sets as `conftest.py` and this file write them."""

from pathlib import Path
from typing import Any

import pytest

from alm.data.catalogue import Source, read_source
from alm.data.example import DataError, Example, ReadReport
from alm.data.leaks import LeakGuard
from alm.data.origins import clotho, freesound, librivox, video_of_url, youtube, youtube_of_name

TEST, OTHER = "-bcdefghijk", "abcdefghij_"


def read(source: str, guard: LeakGuard) -> tuple[list[Example], ReadReport]:
    parsed = Source.parse(source)
    report = ReadReport(parsed.name)
    return list(read_source(parsed, report, 0.0, guard)), report


def audiocaps_test(folder: Path) -> Path:
    path = folder / "test.csv"
    path.write_text("audiocap_id,youtube_id,start_time,caption\n" + f"1,{TEST},30,a dog\n" * 5, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "form",
    [
        "audiocaps",
        "audioset",
        "ifcaps",
        "wavcaps_audioset",
        "parquet_audiocaps",
        "parquet_audioset",
        "ifcaps_archive",
        "compa_r",
        "musicqa",
    ],
)
def test_one_video_is_one_clip_in_every_data_set(form: str, tmp_path: Path, write: dict[str, Any]) -> None:
    guard = LeakGuard.from_files([audiocaps_test(tmp_path)])
    source = (
        write[form](tmp_path / "train", [(TEST, "leaked"), (OTHER, "fine")])
        if (tmp_path / "train").mkdir() is None
        else ""
    )
    (example,), report = read(source, guard)
    assert example.messages[1]["content"][0]["text"] == "fine"
    assert dict(report.excluded) == dict(guard.excluded) == {"AudioCaps (test.csv)": 1}
    assert (report.rows, report.examples, report.unchecked) == (2, 1, 0)
    assert "1 of AudioCaps (test.csv)" in guard.summary() and "5 of 5 rows name" in guard.listed[0]


def test_altered_copies_of_musicbenchs_test_clips(tmp_path: Path, write: dict[str, Any]) -> None:
    write["write_lines"](tmp_path / "MusicBench_test_A.json", [{"location": f"data/{TEST}.wav", "main_caption": "a"}])
    clips = [(TEST, "itself"), (f"{TEST}_1", "higher"), (f"{TEST}_12", "slower"), (f"{OTHER}_1", "fine")]
    source = write["musicbench"](tmp_path, clips)
    (example,), report = read(source, LeakGuard.from_files([tmp_path / "MusicBench_test_A.json"]))
    assert example.meta["location"] == f"data_aug2/{OTHER}_1.wav"
    assert report.excluded.total() == 3


def test_excluded_clips_do_not_count_as_missing(tmp_path: Path, write: dict[str, Any]) -> None:
    source = write["audiocaps"](tmp_path, [(TEST, "leaked"), (OTHER, "fine")])
    (tmp_path / "train" / f"Y{TEST}.wav").unlink()  # as somebody careful would
    _, report = read(source, LeakGuard.from_files([audiocaps_test(tmp_path)]))
    assert not report.dropped and not report.missing_audio


def test_clotho_in_clothoaqa_and_in_freesound(tmp_path: Path, write: dict[str, Any]) -> None:
    header = ["file_name", *(f"caption_{n}" for n in range(1, 6))]
    captions = tmp_path / "clotho_captions_evaluation.csv"
    write["write_csv"](captions, [header, ["Rain &amp; wind .wav", *"abcde"], ["Ding.wav", *"abcde"]])
    guard = LeakGuard.from_files([captions])
    asked = write["clothoaqa"](tmp_path / "aqa", [("Rain & wind ", "yes"), ("ding", "no"), ("Ding", "yes")])
    (example,), report = read(asked, guard)
    assert example.meta["file_name"] == "ding.wav" and report.excluded.total() == 2  # capitals tell files apart

    metadata = tmp_path / "clotho_metadata_evaluation.csv"
    text = "file_name,keywords,sound_id,sound_link,license\nDing.wav,caf\xe9,512,l,c\nx.wav,,Not found,,\n"
    metadata.write_bytes(text.encode("iso-8859-1"))
    with_numbers = LeakGuard.from_files([captions, metadata])
    source = write["folder_csv"](tmp_path / "sounds", [("512", "ding"), ("513", "dong")])
    assert [e.meta["file_name"] for e in read(f"{source},named_after=freesound", with_numbers)[0]] == ["clips/513.ogg"]
    development = write["clotho"](tmp_path, [("Ding", "a ding")])
    (tmp_path / "clotho_metadata_development.csv").write_bytes(text.encode("iso-8859-1"))
    assert read(development, LeakGuard({"freesound:512": "x"}))[1].excluded.total() == 1


def test_wavcaps_blacklists(tmp_path: Path, write: dict[str, Any]) -> None:
    blacklist = tmp_path / "blacklist_exclude_test_ac.json"
    write["write_json"](blacklist, {"AudioSet": [f"Y{TEST}.wav"], "FreeSound": ["7", "Not found"]})
    source = write["wavcaps_audioset"](tmp_path, [(TEST, "leaked"), (OTHER, "fine")])
    (example,), report = read(f"{source},blacklist={blacklist}", LeakGuard({}))
    assert example.id == f"AudioSet_SL:Y{OTHER}.wav"
    assert dict(report.excluded) == {"WavCaps' blacklist (blacklist_exclude_test_ac.json)": 1}
    guard = LeakGuard.from_files([blacklist])
    assert set(guard.origins) == {f"youtube:{TEST}", "freesound:7"} and "2 of 3 rows" in guard.listed[0]
    (tmp_path / "json_files" / "FreeSound").mkdir()
    rows = {
        "num_captions_per_audio": 1,
        "data": [{"id": n, "caption": "c", "duration": d} for n, d in ((7, 1), (8, 9e4))],
    }
    write["write_json"](tmp_path / "json_files" / "FreeSound" / "fsd_final.json", rows)
    for number in (7, 8):
        write["put"](tmp_path / "FreeSound_flac" / f"{number}.flac", "x")
    freesound_part = f"wavcaps={tmp_path / 'json_files'},part=FreeSound"
    assert [e.id for e in read(freesound_part, guard)[0]] == ["FreeSound:8"]  # a number and not text, in the file
    _, report = read(f"{freesound_part},max_seconds=60", guard)
    assert report.examples == 0 and report.dropped.total() == 1 and report.excluded.total() == 1


def test_librispeech_chapters_are_known_in_libritts(tmp_path: Path, write: dict[str, Any]) -> None:
    pairs = tmp_path / "librispeech_pc_test_clean_cross_sentence.lst"
    pairs.write_text("84-121123-0009\t4.3\tsome text\t61-70970-0000\t6.6\tmore text\n", encoding="utf-8")
    guard = LeakGuard.from_files([pairs])
    (tmp_path / "tts").mkdir()
    source = write["libritts"](
        tmp_path / "tts", [("84_121123_000007_000001", "leaked"), ("84_121550_000007_000001", "fine")]
    )
    assert [example.id for example in read(source, guard)[0]] == ["84_121550_000007_000001"]


def test_what_names_no_origin_is_said(tmp_path: Path, write: dict[str, Any]) -> None:
    write["write_json"](
        tmp_path / "mmau-test-mini.json", [{"audio_id": "./test-mini-audios/3fe64f3d-282c.wav", "choices": ["a"]}]
    )
    guard = LeakGuard.from_files([tmp_path / "mmau-test-mini.json", audiocaps_test(tmp_path)])
    assert "0 of 1 rows name their clip's origin; clips: none new" in guard.listed[0]
    _, report = read(write["folder_csv"](tmp_path / "any", [(TEST, "text")]), guard)
    assert report.unchecked == 1 and not report.excluded  # no guess is made from names that may mean anything


@pytest.mark.parametrize(
    ("name", "text", "clips"),
    [
        ("MMAR-meta.jsonl", '{"id": "x", "url": "https://www.youtube.com/shorts/-bcdefghijk", "choices": []}\n', 1),
        ("MMAR-meta.json", '[{"id": "BV1AeZzYTEKq_00-00-24_00-00-54", "url": "", "choices": []}]', 1),
        ("eval_segments.csv", f'# a\n# b\n# YTID, …\n{TEST}, 0.000, 10.000, "/m/09x0r,/m/05zppz"\n', 1),
        ("musiccaps-public.csv", f"ytid,start_s,caption\n{TEST},30,a\n{TEST},40,a\n", 1),
        ("audioldm.json", '{"data": [{"wav": "/x/Y-bcdefghijk.wav", "caption": "[a] {b}"}]}', 1),
        ("tango.json", f'{{"dataset": "audiocaps", "location": "data/{TEST}_30.wav", "captions": "a"}}\n', 1),
        ("compa_r_test.json", f'[{{"audio_id": "./compa_r_test_audios/{TEST}.wav", "instruction_output": []}}]', 1),
        ("EvalMusicQA.json", '[{"audio_name": "012542.wav", "conversation": []}]', 0),
        ("clotho_aqa_test.csv", "file_name,QuestionText,answer,confidence\na .wav,b,c,d\n", 1),
    ],
)
def test_every_form_of_a_test_set(name: str, text: str, clips: int, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert len(LeakGuard.from_files([tmp_path / name]).origins) == clips


@pytest.mark.parametrize(
    ("name", "text"),
    [("a.csv", "x,y\n1,2\n"), ("a.json", '[{"x": 1}]'), ("a.txt", ""), ("a.lst", "hello\n"), ("a.jsonl", "")],
)
def test_other_files_are_refused(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=f"{name}.*Accepted: CSV of AudioCaps"):
        LeakGuard.from_files([tmp_path / name])
    with pytest.raises(DataError, match="cannot be read"):
        LeakGuard.from_files([tmp_path / "none.csv"])


def test_origins() -> None:
    assert youtube("-bcdefghijk") == ["youtube:-bcdefghijk"] and youtube("short") == youtube("") == []
    same = (
        "-bcdefghijk.wav",
        "Y-bcdefghijk.wav",
        "a/-bcdefghijk_30.flac",
        "-bcdefghijk_30000_40000.mp3",
        "-bcdefghijk_1.wav",
    )
    assert {tuple(youtube_of_name(name)) for name in same} == {("youtube:-bcdefghijk",)}
    assert youtube_of_name("Yabcdefghij_30.wav") == youtube_of_name("Yabcdefghij.wav") == ["youtube:Yabcdefghij"]
    assert youtube_of_name("012542.wav") == youtube_of_name("a name of a file.wav") == []
    assert video_of_url("https://youtu.be/-bcdefghijk?t=1") == video_of_url(
        "https://www.youtube.com/watch?list=x&v=-bcdefghijk"
    )
    assert video_of_url("https://www.bilibili.com/video/BV1AeZzYTEKq/?p=2") == ["bilibili:BV1AeZzYTEKq"]
    assert video_of_url("https://example.com/") == []
    assert freesound(17) == freesound("17.flac") == ["freesound:17"] and freesound("Not found") == []
    assert clotho("a  b .wav") == clotho("a b.wav") == ["clotho:a b"]
    assert librivox("84-121123-0009") == librivox("84_121123_000007_000001") == ["librivox:84-121123"]
    assert librivox("4.355") == librivox("some text") == []
