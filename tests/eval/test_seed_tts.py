"""`eval/seed_tts.py` through its own `main()`: stored transcripts, any system's files, a tiny checkpoint that speaks."""

import json
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperForConditionalGeneration

from alm.data.example import DataError
from alm.scoring.comparison import compare
from alm.tokenizer import train_tokenizer
from codec.audio import write_audio

pytest.importorskip("jiwer")
pytest.importorskip("whisper_normalizer")
ROOT = Path(__file__).parents[2]
TEXTS = {"u1": "Good morning.", "u2": "Twenty-one cats.", "u3": "Yes.", "u4": "It rains again."}
HEARD = {"u1": "good morning", "u2": "twenty one cats", "u3": "yes yes yes", "u4": "it rains"}
MACRO = (0 + 2 / 2 + 2 / 1 + 1 / 3) / 4
"""By hand: "twentyone cats" against three words is one substitution and one insertion."""


@pytest.fixture(scope="module")
def main() -> Callable[[list[str]], None]:
    return runpy.run_path(str(ROOT / "eval" / "seed_tts.py"))["main"]


@pytest.fixture
def meta(tmp_path: Path) -> Path:
    path = tmp_path / "meta.lst"
    path.write_text("".join(f"{name}|||{text}\n" for name, text in TEXTS.items()))
    return path


@pytest.fixture
def wavs(tmp_path: Path) -> Path:
    folder = tmp_path / "wavs"
    folder.mkdir()
    for number, name in enumerate(TEXTS):
        noise = np.random.default_rng(number).normal(0, 0.1, 4_000 + 800 * number).astype(np.float32)
        write_audio(folder / f"{name}.wav", noise, 16_000)
    return folder


@pytest.fixture(scope="module")
def whisper(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real class, random weights, an own tokenizer of few words."""
    folder = tmp_path_factory.mktemp("whisper")
    torch.manual_seed(0)
    tokenizer = train_tokenizer(list(TEXTS.values()) * 8, 320)
    config = WhisperConfig(
        vocab_size=len(tokenizer),
        d_model=16,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
        max_target_positions=12,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
        decoder_start_token_id=1,
        suppress_tokens=None,
        begin_suppress_tokens=None,
    )
    model = WhisperForConditionalGeneration(config)
    model.generation_config.max_length = 12
    model.save_pretrained(folder)
    WhisperFeatureExtractor(feature_size=80).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def result(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


def arguments(meta: Path, output: Path, *more: str) -> list[str]:
    return ["--meta", str(meta), "--language", "en", "--output", str(output), "--metrics", "utmos", *more]


def test_stored_transcripts(main: Any, meta: Path, tmp_path: Path) -> None:
    (tmp_path / "heard.json").write_text(json.dumps({f"{name}.wav": text for name, text in HEARD.items()}))
    main(arguments(meta, tmp_path / "a.json", "--transcripts", str(tmp_path / "heard.json")))
    scores = result(tmp_path / "a.json")["scores"]
    assert scores["wer_macro"]["value"] == pytest.approx(MACRO)
    assert scores["wer_pooled"]["value"] == pytest.approx((0 + 2 + 2 + 1) / (2 + 2 + 1 + 3))
    # Whisper's normal form writes both as 21
    assert scores["wer_corpus"]["value"] < scores["wer_pooled"]["value"]
    assert {"utmos", "stop_rate"} <= result(tmp_path / "a.json")["unavailable"].keys()
    (tmp_path / "better.json").write_text(json.dumps(TEXTS))
    main(arguments(meta, tmp_path / "b.json", "--transcripts", str(tmp_path / "better.json")))
    assert result(tmp_path / "b.json")["scores"]["wer_macro"]["value"] == 0
    assert compare(tmp_path / "a.json", tmp_path / "b.json").differences["wer_macro"].value == pytest.approx(-MACRO)


def test_what_is_missing_is_an_error_or_counted(main: Any, meta: Path, tmp_path: Path) -> None:
    (tmp_path / "heard.json").write_text(json.dumps({"u1": "good morning"}))
    more = ("--transcripts", str(tmp_path / "heard.json"))
    with pytest.raises(DataError, match=r"lacks 3 of 4 utterances \(first: u2\)"):
        main(arguments(meta, tmp_path / "a.json", *more))
    main(arguments(meta, tmp_path / "a.json", *more, "--allow_missing"))
    made = result(tmp_path / "a.json")
    # as if nothing had been heard, where the official script would leave them out and give 0
    assert made["scores"]["wer_macro"]["value"] == pytest.approx(3 / 4) and made["counts"]["missing"] == 3


def test_a_recogniser_hears_any_systems_files(main: Any, meta: Path, wavs: Path, whisper: Path, tmp_path: Path) -> None:
    more = ("--audio", str(wavs), "--asr", str(whisper))
    main(arguments(meta, tmp_path / "a.json", *more))
    made = result(tmp_path / "a.json")
    rows = [json.loads(line) for line in (tmp_path / "a.items.jsonl").read_text().splitlines()]
    assert [row["said"] for row in rows if "said" in row] == list(TEXTS.values())
    assert made["scores"]["seconds"]["value"] == pytest.approx(np.mean([4_000 + 800 * n for n in range(4)]) / 16_000)
    # its transcripts, stored, give the same figures
    (tmp_path / "heard.json").write_text(json.dumps({row["id"]: row["heard"] for row in rows if "heard" in row}))
    main(arguments(meta, tmp_path / "b.json", "--transcripts", str(tmp_path / "heard.json")))
    for name in ("wer_macro", "wer_pooled", "wer_corpus"):
        assert made["scores"][name]["value"] == result(tmp_path / "b.json")["scores"][name]["value"]
