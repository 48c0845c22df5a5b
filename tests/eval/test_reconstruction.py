"""`eval/reconstruction.py` through its own `main()`, and its measures."""

import json
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from alm.data.example import DataError
from alm.scoring.reconstruction import log_mel_error, stoi
from codec import EntangleCodec, EntangleCodecConfig, EntangleCodecModel
from codec.audio import write_audio
from codec.mel import MelSpec

ROOT = Path(__file__).parents[2]
SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
SPEC = MelSpec(mean=-6.0, std=3.0)


def speech_like(seconds: float) -> Any:
    """Noise in syllables."""
    time = np.arange(int(24_000 * seconds)) / 24_000
    return (0.2 * np.random.default_rng(0).standard_normal(len(time)) * (np.sin(2 * np.pi * 4 * time) > 0)).astype(
        np.float32
    )


@pytest.fixture
def codec(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    small = {f"{part}{name}": value for part in ("", "decoder_", "text_") for name, value in SMALL.items()}
    vocoder = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    config = EntangleCodecConfig(**small, codebook_size=32, conditioning="add", mel=dict(vars(SPEC)), vocoder=vocoder)
    EntangleCodec(EntangleCodecModel(config)).save_pretrained(tmp_path / "codec")
    return tmp_path / "codec"


def test_a_perfect_copy_and_a_bad_one() -> None:
    wave = speech_like(2)
    assert log_mel_error(wave, wave, SPEC) == 0
    assert log_mel_error(wave, 0.5 * wave, SPEC) == pytest.approx(
        2 * np.log(2) / 3, rel=0.4
    )  # silent frames stay at the floor
    assert stoi(wave, wave, 24_000) == pytest.approx(1, abs=1e-6)
    noise = np.random.default_rng(1).standard_normal(len(wave)).astype(np.float32)
    assert stoi(wave, wave + noise, 24_000) < 0.7
    assert np.isnan(stoi(wave[:4_000], wave[:4_000], 24_000))  # too short to be defined
    click = np.zeros(24_000, np.float32)
    click[12_000:12_100] = 0.5
    assert np.isnan(stoi(click, click, 24_000))  # one loud frame
    assert np.isnan(stoi(wave[:500], wave[:500], 24_000))
    with pytest.raises(ValueError, match="fewer"):
        log_mel_error(wave, wave[:-1], SPEC)


def test_the_script(codec: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for folder in ("speech", "sounds"):
        (tmp_path / folder).mkdir()
        for n in range(2):
            write_audio(tmp_path / folder / f"{n}.wav", speech_like(0.8 + n / 4), 24_000)
    main = runpy.run_path(str(ROOT / "eval" / "reconstruction.py"))["main"]
    output, picture = tmp_path / "result.json", tmp_path / "mel.png"
    flags = ["--codec", str(codec), "--audio", f"{tmp_path}/speech", f"{tmp_path}/sounds", "--output", str(output)]
    main([*flags, "--picture", str(picture), "--save_audio", str(tmp_path / "made")])
    result = json.loads(output.read_text())
    assert set(result["groups"]["folder"]) == {"speech", "sounds"}
    assert result["scores"]["codebook_use"]["n"] == sum(-(-int(24_000 * s) // 480) for s in (0.8, 1.05)) * 2
    assert 0 < result["scores"]["perplexity_share"]["value"] <= result["scores"]["codebook_use"]["value"] <= 1
    assert result["scores"]["log_mel_l1"]["n"] == 4
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert len(list((tmp_path / "made").rglob("*.wav"))) == 4
    assert "log_mel_l1" in capsys.readouterr().out
    (tmp_path / "speech" / "broken.wav").write_text("no audio")
    with pytest.raises(DataError, match=r"1 of 5 files cannot be read.*broken\.wav"):
        main(flags)
