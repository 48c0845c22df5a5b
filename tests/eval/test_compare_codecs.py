"""`eval/compare_codecs.py`: real processes for two tiny codecs, and one that cannot be had."""

import json
import runpy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from alm.data.example import DataError
from codec import EntangleCodec, EntangleCodecConfig, EntangleCodecModel
from codec.audio import write_audio

ROOT = Path(__file__).parents[2]
SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
NUMBERS = {f"{part}{name}": value for part in ("", "decoder_", "text_") for name, value in SMALL.items()}


@pytest.fixture
def main() -> Callable[[list[str]], None]:
    return runpy.run_path(str(ROOT / "eval" / "compare_codecs.py"))["main"]


@pytest.mark.slow
def test_a_row_for_each_codec(main: Callable, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    vocoder = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    for name, size in (("one", 32), ("two", 64)):
        config = EntangleCodecConfig(**NUMBERS, codebook_size=size, conditioning="add", vocoder=vocoder)
        EntangleCodec(EntangleCodecModel(config)).save_pretrained(tmp_path / name)
    write_audio(tmp_path / "audio" / "a.wav", 0.1 * np.random.default_rng(0).standard_normal(24_000), 24_000)
    codecs = [str(tmp_path / "one"), str(tmp_path / "two"), "nobody/nothing"]
    flags = ["--audio", str(tmp_path / "audio"), "--metrics", "log_mel_l1", "--output_dir", str(tmp_path / "out")]
    main(["--codecs", *codecs, "--baselines", "false", *flags])
    table = (tmp_path / "out" / "table.md").read_text()
    rows = [line for line in table.splitlines() if line.startswith("|")]
    assert table.strip() in capsys.readouterr().out
    assert "50 · 1 × 32" in rows[2] and "50 · 1 × 64" in rows[3]
    assert "nobody_nothing | not measured: " in rows[4] and "nobody/nothing" in rows[4]
    first = json.loads(next((tmp_path / "out").glob("*one.json")).read_text())
    assert f"{first['scores']['log_mel_l1']['value']:.3f}" in rows[2]
    assert "wer_corpus: not available" in table


def test_a_mistake_in_all_rows_is_an_error(main: Callable, tmp_path: Path) -> None:
    flags = ["--codecs", "nobody/nothing", "--baselines", "false", "--output_dir", str(tmp_path / "out")]
    with pytest.raises(DataError, match=r"none of the codecs could be measured.*nowhere"):
        main([*flags, "--audio", str(tmp_path / "nowhere")])


def test_the_papers_baselines_at_its_operating_points(main: Callable, capsys: pytest.CaptureFixture[str]) -> None:
    main(["--codecs", "mine", "mimi:8", "--audio", "x", "--metrics", "stoi", "--limit", "3", "--dry_run", "true"])
    lines = capsys.readouterr().out.splitlines()
    given = [line.split("--codec ")[1].split()[0] for line in lines]
    assert given[:2] == ["mine", "mimi"] and "--num_codebooks 8" in lines[1]
    assert set(given[2:]) == {
        *("dac", "encodec", "mimi", "xcodec", "xcodec2", "speechtokenizer", "wavtokenizer", "xy-tokenizer")
    }
    assert "--num_codebooks 4" in next(line for line in lines[2:] if "--codec mimi" in line)
    assert all("--metrics stoi" in line and "--limit 3" in line for line in lines)
    for given in (["--codecs", "a", "a/"], []):
        with pytest.raises(DataError, match="codecs of different names"):
            main([*given, "--baselines", "false", "--audio", "x"])
