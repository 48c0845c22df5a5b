"""`eval/token_space.py` through its own `main()`."""

import importlib.util
import json
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from alm.data.example import DataError
from codec import EntangleCodecConfig, EntangleCodecForPreTraining
from codec.audio import write_audio
from codec.text import CaptionTokenizer

ROOT = Path(__file__).parents[2]
SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}


@pytest.fixture
def main() -> Callable[[list[str]], None]:
    return runpy.run_path(str(ROOT / "eval" / "token_space.py"))["main"]


@pytest.fixture
def audio(tmp_path: Path) -> Path:
    """Two kinds of sound, five clips each."""
    rng = np.random.default_rng(0)
    for n in range(5):
        tone = 0.3 * np.sin(2 * np.pi * (200 + 10 * n) * np.arange(9_600) / 24_000)
        write_audio(tmp_path / "audio" / "tones" / f"{n}.wav", tone, 24_000)
        write_audio(tmp_path / "audio" / "noises" / f"{n}.wav", 0.1 * rng.standard_normal(9_600), 24_000)
    return tmp_path / "audio"


def test_mean_codebook_vectors(
    main: Callable, audio: Path, tmp_path: Path, make_toy_codec: Any, monkeypatch: Any
) -> None:
    codec = make_toy_codec(num_codebooks=2)
    monkeypatch.setattr("codec.zoo.load_codec", lambda *_, **__: codec)
    output = tmp_path / "space.png"
    flags = [
        "--codec",
        "toy",
        "--audio",
        f"{audio}/tones",
        f"{audio}/noises",
        "--output",
        str(output),
        "--method",
        "pca",
    ]
    main(flags)
    record = json.loads((tmp_path / "space.json").read_text())
    assert output.read_bytes().startswith(b"\x89PNG")
    assert [point["label"] for point in record["points"]] == ["tones"] * 5 + ["noises"] * 5
    # by hand for one clip: rows k × 64 + code, over all frames and codebooks
    from codec.audio import read_audio

    codes = codec.encode([read_audio(audio / "tones" / "0.wav", 24_000)])[0]
    rows = codec.codebook_vectors()
    vector = np.mean([rows[64 * k + c] for k in range(2) for c in codes[k]], axis=0)
    program = runpy.run_path(str(ROOT / "eval" / "token_space.py"))
    arguments = program["SpaceArguments"](codec="toy", audio=["x"])
    embed, _, _ = program["embedder"](arguments)
    assert np.allclose(embed(read_audio(audio / "tones" / "0.wav", 24_000), "")["audio"], vector, atol=1e-6)
    first = output.with_suffix(".json").read_text()
    main(flags)
    assert json.loads(first)["points"] == json.loads(output.with_suffix(".json").read_text())["points"]


def test_rows_of_a_language_model(
    main: Callable, audio: Path, tmp_path: Path, monkeypatch: Any, make_toy_codec: Any
) -> None:
    codec = make_toy_codec()
    table = torch.nn.Embedding(100, 6)

    class Vocabulary:
        def codes_to_ids(self, codes: Any) -> Any:
            return codes.ravel() + 30

    class Processor:
        vocabulary = Vocabulary()

    Processor.codec = codec  # type: ignore[attr-defined]

    class Model:
        def get_input_embeddings(self) -> Any:
            return table

    monkeypatch.setattr("alm.checkpoint.load_checkpoint", lambda *_, **__: (Model(), Processor()))
    flags = ["--model", "m", "--audio", f"{audio}/tones", f"{audio}/noises", "--method", "pca"]
    main([*flags, "--output", str(tmp_path / "s.png")])
    assert len(json.loads((tmp_path / "s.json").read_text())["points"]) == 10


@pytest.fixture
def stage_one(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    small = {f"{part}{name}": value for part in ("", "decoder_", "text_") for name, value in SMALL.items()}
    config = EntangleCodecConfig(
        **small,
        codebook_size=32,
        conditioning="add",
        mel={"mean": -6.0, "std": 3.0},
        text_vocab_size=64,
        projection_size=8,
    )
    EntangleCodecForPreTraining(config).save_pretrained(tmp_path / "pretraining")
    captions = [f"a {word} number {n}" for word in ("tone", "noise") for n in range(5)] * 4
    CaptionTokenizer.train(captions, 64, 32).save(tmp_path / "pretraining")
    return tmp_path / "pretraining"


def test_audio_and_captions(main: Callable, stage_one: Path, audio: Path, tmp_path: Path, capsys: Any) -> None:
    lines = ["file_name,caption,kind"]
    lines += [f"{kind}/{n}.wav,a {kind[:-1]} number {n},of {kind}" for kind in ("tones", "noises") for n in range(5)]
    (audio / "captions.csv").write_text("\n".join(lines) + "\n")
    flags = ["--pretraining", str(stage_one), "--captions", f"{audio}/captions.csv", "--method", "pca"]
    main([*flags, "--output", str(tmp_path / "s.png")])
    record = json.loads((tmp_path / "s.json").read_text())
    assert [point["kind"] for point in record["points"][:2]] == ["audio", "text"] and len(record["points"]) == 20
    assert set(record["centre_distances"]) == {"tones", "noises"}
    assert "the centres of audio and captions" in capsys.readouterr().out
    main([*flags, "--output", str(tmp_path / "s.png"), "--label_column", "kind", "--limit", "5"])
    record = json.loads((tmp_path / "s.json").read_text())
    assert {point["label"] for point in record["points"]} == {"of tones", "of noises"} and len(record["points"]) == 10
    with pytest.raises(DataError, match="no column 'sort'"):
        main([*flags, "--label_column", "sort"])
    with pytest.raises(DataError, match="no stage-1 checkpoint"):
        main(["--pretraining", str(audio), "--captions", f"{audio}/captions.csv"])


def test_umap_is_asked_for_by_name(
    main: Callable, audio: Path, tmp_path: Path, toy_codec: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr("codec.zoo.load_codec", lambda *_, **__: toy_codec)
    flags = ["--codec", "toy", "--audio", f"{audio}/tones", f"{audio}/noises", "--output", str(tmp_path / "s.png")]
    if importlib.util.find_spec("umap") is None:
        with pytest.raises(DataError, match="--method pca"):
            main(flags)
    else:
        main(flags)
        assert len(json.loads((tmp_path / "s.json").read_text())["points"]) == 10
    with pytest.raises(SystemExit):
        main(["--codec", "x"])


def test_dry_run(main: Callable, audio: Path, capsys: Any) -> None:
    main(["--codec", "x", "--audio", f"{audio}/tones", "--dry_run"])
    assert "5 clips of tones" in capsys.readouterr().out
