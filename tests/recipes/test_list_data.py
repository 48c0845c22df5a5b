"""The command that the reader types, on small data sets in official formats with real audio."""

import json
import runpy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from codec.audio import write_audio

SCRIPT = Path(__file__).parents[2] / "recipes" / "list_data.py"
NAMES = ("-abcdefghij", "bbcdefghijk", "cbcdefghijk")


@pytest.fixture(scope="module")
def main() -> Callable[[list[str]], None]:
    return runpy.run_path(str(SCRIPT))["main"]


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    rows = "".join(f"{n},{name},0,a caption of {name}\n" for n, name in enumerate(NAMES))
    (tmp_path / "train.csv").write_text("audiocap_id,youtube_id,start_time,caption\n" + rows + rows, encoding="utf-8")
    (tmp_path / "test.csv").write_text(
        f"audiocap_id,youtube_id,start_time,caption\n9,{NAMES[0]},0,x\n", encoding="utf-8"
    )
    (tmp_path / "train").mkdir()
    for name in NAMES[:2]:
        write_audio(tmp_path / "train" / f"Y{name}.wav", np.zeros(16_000 * 9, np.float32), 16_000)
    return tmp_path


def test_everything_is_listed(
    main: Callable[[list[str]], None], corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["--data", f"audiocaps={corpus}", "--guard", str(corpus / "test.csv"), "--hours"])
    said = capsys.readouterr().out
    for line in (
        "kept out: AudioCaps (test.csv): 1 of 1 rows name their clip's origin; clips: 1 of youtube",
        "licence   MIT, for academic purposes only",
        "rows      6\n  examples  2\n  clips     1\n  hours     0.00 (of 1 clips)",
        f"missing   2, the first {corpus / 'train'}/Ycbcdefghijk.wav: over 10%, training would stop",
        "kept out  2 in AudioCaps (test.csv)",
        "user      <audio " + str(corpus / "train" / "Ybbcdefghijk.wav>"),
        "assistant 'a caption of bbcdefghijk'",
        "examples kept out of training: 2 of AudioCaps (test.csv)",
    ):
        assert line in said


def test_hours_are_of_distinct_clips_by_header_or_metadata(
    main: Callable[[list[str]], None], corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = (corpus / "train" / f"Y{NAMES[0]}.wav").read_bytes()
    rows = [{"audio": {"bytes": audio, "path": "a.wav"}, "caption": "x"} for audio in (clip, clip, b"not audio")]
    (corpus / "hub").mkdir()
    pq.write_table(pa.Table.from_pylist(rows), corpus / "hub" / "train-00000-of-00001.parquet")
    wavcaps = corpus / "json_files" / "SoundBible" / "sb_final.json"
    wavcaps.parent.mkdir(parents=True)
    wavcaps.write_text(json.dumps({"data": [{"id": "1", "caption": "a", "duration": 7200}]}), encoding="utf-8")
    (corpus / "SoundBible").mkdir()
    (corpus / "SoundBible" / "1.flac").touch()
    main(["--data", f"folder={corpus / 'hub'}", f"wavcaps={wavcaps}", "--hours", "true", "--examples", "1"])
    said = capsys.readouterr().out
    assert "examples  3\n  clips     2\n  hours     0.00 (of 1 clips)\n  warning   1 clips whose header" in said
    assert f"<audio a.wav ({len(clip):,} bytes)>" in said
    assert "clips     1\n  hours     2.00 (of 1 clips)" in said  # stated by the data set: the file is not opened


def test_without_hours_no_header_is_read_and_limit_stops_early(
    main: Callable[[list[str]], None], corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["--data", f"audiocaps={corpus}", "--limit", "1"])
    said = capsys.readouterr().out
    assert "rows      1, the first 1 examples only" in said and "hours     not read (--hours)" in said


def test_alone_it_lists_names_and_options(
    main: Callable[[list[str]], None], capsys: pytest.CaptureFixture[str]
) -> None:
    main([])
    said = capsys.readouterr().out
    assert "audiocaps" in said and "options: audio, split, captions" in said and "CC BY 4.0" in said
