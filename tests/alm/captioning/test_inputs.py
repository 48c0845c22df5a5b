"""Which clips, in which order, with which transcript; and what they will cost."""

import os
from pathlib import Path

import pytest

from alm.captioning.cost import estimate, money, render
from alm.captioning.inputs import list_clips
from alm.captioning.transcripts import Transcripts, read_transcripts
from alm.data.example import DataError
from codec.audio import write_audio


def names(found: list) -> list[str]:
    return [clip.name for clip in found]


def test_folders_lists_and_tables_keep_their_order(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run" / "out.csv"
    assert names(list_clips([clips], out)) == [f"../audio/{n}.wav" for n in range(6)]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "list.txt").write_text("# mine\naudio/4.wav\n\naudio/2.wav\naudio/4.wav\n")
    assert names(list_clips(["list.txt"], out)) == ["../audio/4.wav", "../audio/2.wav"]
    (clips / "metadata.csv").write_text("file_name,kind,transcript\n5.wav,music,\n1.wav,,Hello there\n")
    found = list_clips([clips / "metadata.csv", "audio/3.wav", clips], out, "sound", Transcripts())
    assert names(found) == [f"../audio/{n}.wav" for n in (5, 1, 3, 0, 2, 4)]
    assert [(clip.kind, clip.transcript) for clip in found[:3]] == [
        ("music", None),
        ("sound", "Hello there"),
        ("sound", None),
    ]


def test_links_do_not_lead_astray(clips: Path, tmp_path: Path) -> None:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "deep" / "er")
    (clips / "alias.wav").symlink_to(clips / "0.wav")
    found = list_clips([clips], tmp_path / "link" / "out.csv")
    assert found[-1].name == "../../audio/alias.wav"  # its own name, not that of what it links to
    assert all((tmp_path / "link" / clip.name).samefile(clip.path) for clip in found)


def test_mistakes_are_named(clips: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    table = tmp_path / "table.csv"
    for text, message in [
        ("path\nx.wav\n", r"has columns \['path'\]; file_name needed"),
        ("file_name\n", "no rows"),
        ("file_name,kind\nx.wav,noise\n", "row 2: kind 'noise'; accepted are auto, speech, music, sound"),
        ("file_name,kind\n,music\n", "row 2: no file_name"),
    ]:
        table.write_text(text)
        with pytest.raises(DataError, match=message):
            list_clips([table], out)
    with pytest.raises(DataError, match="no such file"):
        list_clips([tmp_path / "nowhere"], out)
    (tmp_path / os.fsdecode(b"audio/\xff.wav")).write_bytes(b"x")
    with pytest.raises(DataError, match="not UTF-8"):
        list_clips([clips], out)


def test_transcripts_are_found_in_the_official_layouts(tmp_path: Path) -> None:
    speech = tmp_path / "LibriSpeech" / "dev-clean" / "84" / "121123"
    libritts = tmp_path / "LibriTTS" / "dev-clean" / "84" / "121123"
    paths = [speech / "84-121123-0000.flac", speech / "84-121123-0001.flac", libritts / "84_121123_000007_000001.wav"]
    paths += [libritts / "84_121123_000008_000000.wav", libritts / "84_121123_000009_000000.wav"]
    for path in paths:
        write_audio(path, [0.1] * 100, 16_000)
    (speech / "84-121123.trans.txt").write_text("84-121123-0000 GO DO YOU HEAR\n84-121123-0002 BUT\n")
    (libritts / "84_121123_000007_000001.normalized.txt").write_text("In eighteen fifteen.\n")
    (libritts / "84_121123_000007_000001.original.txt").write_text("In 1815.")
    (libritts / "84_121123_000008_000000.original.txt").write_text("Maximilian.")
    found = list_clips([tmp_path], tmp_path / "out.csv", transcripts=Transcripts())
    by_path = {clip.path: clip.transcript for clip in found}
    assert [by_path[path] for path in paths] == ["GO DO YOU HEAR", None, "In eighteen fifteen.", "Maximilian.", None]
    (tmp_path / "texts.csv").write_text(
        "file_name,text\nLibriSpeech/dev-clean/84/121123/84-121123-0001.flac,From the table\n"
    )
    table = Transcripts(read_transcripts(tmp_path / "texts.csv"))
    assert [table.of(path) for path in paths[:2]] == ["GO DO YOU HEAR", "From the table"]
    (tmp_path / "texts.csv").write_text("file_name,words\nx,y\n")
    with pytest.raises(DataError, match="transcript"):
        read_transcripts(tmp_path / "texts.csv")


def test_the_estimate_counts_audio_tokens_and_money(clips: Path, tmp_path: Path) -> None:
    (clips / "bad.wav").write_text("no audio")
    found = list_clips([clips], tmp_path / "out.csv")
    seconds = sum((4_800 + 1_600 * n) / 16_000 for n in range(6))
    whole = estimate(found, 25.0, 16_000)
    assert (whole.clips, whole.unreadable, whole.unknown) == (7, 1, 0) and whole.seconds == pytest.approx(seconds)
    assert estimate(found, 125.0, 16_000).prompt_tokens - whole.prompt_tokens == pytest.approx(100 * seconds, abs=1)
    assert whole.megabytes == pytest.approx(seconds * 16_000 * 2 * 4 / 3 / 1e6)
    assert estimate(found, 25.0, 16_000, max_seconds=0.1).seconds == pytest.approx(0.6)
    assert money(2e6, 1e6, [3.0]) == 9.0 and money(2e6, 1e6, [3.0, 10.0]) == 16.0
    text = render(whole, 2, [1000.0], upload=True)
    assert "7 clips" in text and "6 requests, at most 3" in text and "1 unreadable" in text and "MB to send" in text
