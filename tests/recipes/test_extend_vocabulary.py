"""`recipes/extend_vocabulary.py` through its own `main()`."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from alm.checkpoint import load_checkpoint
from alm.data.example import DataError
from alm.vocabulary import ContractError

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def main(workshop: Any) -> Any:
    import runpy

    return runpy.run_path(str(ROOT / "recipes" / "extend_vocabulary.py"))["main"]


def from_config(workshop: Any, output: Path, *more: str) -> list[str]:
    texts = [str(workshop.folder / "music.json"), str(workshop.folder / "clotho.csv")]
    return [
        *["--from_config", str(workshop.config), "--texts", *texts],
        *["--codec", str(workshop.codec), "--output", str(output), *more],
    ]


def test_the_result_is_whole_and_holds_its_codec(workshop: Any) -> None:
    model, processor = load_checkpoint(workshop.model)
    assert type(model).__name__ == "Qwen3ForCausalLM" and model.config.vocab_size % 64 == 0
    assert processor.codec is not None and processor.codec.fingerprint == processor.vocabulary.codec_fingerprint
    assert processor.max_length == 512 and processor.vocabulary.size == 32
    codes = processor.encode_audio([workshop.folder / "audio" / "0.wav"])
    assert codes[0].shape == (1, 9)
    assert sorted(path.name for path in (workshop.model / "codec").iterdir()) == sorted(
        path.name for path in workshop.codec.iterdir()
    )


def test_the_same_again_and_another_seed(main: Any, workshop: Any, tmp_path: Path) -> None:
    main(from_config(workshop, tmp_path / "a"))
    main(from_config(workshop, tmp_path / "b", "--seed", "1", "--initialisation", "gaussian"))
    weights = [
        AutoModelForCausalLM.from_pretrained(p).lm_head.weight for p in (workshop.model, tmp_path / "a", tmp_path / "b")
    ]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


def test_from_a_checkpoint(main: Any, workshop: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from transformers import Qwen3Config, Qwen3ForCausalLM

    from alm.tokenizer import train_tokenizer

    tokenizer = train_tokenizer(["which sound"] * 4, 300)
    small = {
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 16,
    }
    model = Qwen3ForCausalLM(Qwen3Config(vocab_size=1_000, intermediate_size=64, tie_word_embeddings=False, **small))
    model.save_pretrained(tmp_path / "text")
    tokenizer.save_pretrained(tmp_path / "text")
    arguments = ["--model", str(tmp_path / "text"), "--codec", str(workshop.codec), "--output", str(tmp_path / "grown")]
    main([*arguments, "--dry_run"])
    assert not (tmp_path / "grown").exists()
    main([*arguments, "--dtype", "bfloat16"])
    out = capsys.readouterr().out
    assert "1,000 → 1,000 (apart from the output head)" in out
    assert f"special ids      {len(tokenizer)} start" in out and f"audio ids        {len(tokenizer) + 3} … " in out
    grown, processor = load_checkpoint(tmp_path / "grown")
    assert grown.dtype == torch.bfloat16 and processor.vocabulary.hash in out
    assert len(AutoTokenizer.from_pretrained(tmp_path / "grown")) == len(tokenizer) + 3 + 32
    with pytest.raises(ContractError, match="grown once"):
        main(["--model", str(tmp_path / "grown"), *arguments[2:-1], str(tmp_path / "twice")])


def test_a_dry_run_needs_a_configuration_only(
    main: Any, workshop: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import Qwen3Config

    shape = {"hidden_size": 4096, "intermediate_size": 12_288, "num_attention_heads": 32, "num_key_value_heads": 8}
    config = Qwen3Config(vocab_size=151_936, num_hidden_layers=36, head_dim=128, dtype="bfloat16", **shape)  # 8B
    config.save_pretrained(tmp_path / "snapshot")
    asked = []

    def snapshot_download(name: str, revision: str | None, allow_patterns: list[str]) -> str:
        asked.append((name, "*.safetensors" in allow_patterns))
        return str(tmp_path / "snapshot")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    arguments = ["--model", "Qwen/Qwen3-8B", "--codec", str(workshop.codec), "--output", str(tmp_path / "grown")]
    main([*arguments, "--dry_run"])
    out = capsys.readouterr().out
    assert "8,190,735,360 parameters when grown, bfloat16" in out  # 32 codes fit in the spare rows
    assert "151,936 → 151,936 (apart from the output head)" in out and "audio ids        151,672 … 151,703" in out
    assert "16.38 GB written" in out and "the weights are not here" in out and "no tokenizer here" in out
    with pytest.raises(ContractError, match="does not hold all its weights"):
        main(arguments)
    assert asked == [("Qwen/Qwen3-8B", False), ("Qwen/Qwen3-8B", True)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["snapshot"]


def test_another_codec_stops_with_both_fingerprints(workshop: Any, tmp_path: Path) -> None:
    from codec import EntangleCodec, EntangleCodecModel
    from codec.zoo import load_codec

    own = load_codec(workshop.codec)
    torch.manual_seed(1)
    other = EntangleCodec(EntangleCodecModel(EntangleCodecModel.from_pretrained(workshop.codec).config))
    other.save_pretrained(tmp_path / "other")
    with pytest.raises(ContractError, match=f"{other.fingerprint}.*{own.fingerprint}"):
        load_checkpoint(workshop.model, codec=tmp_path / "other")
    assert load_checkpoint(workshop.model, codec=own).processor.codec is own


def test_refusals(main: Any, workshop: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(DataError, match="--overwrite_output"):
        main(from_config(workshop, workshop.model))
    (tmp_path / "config.yaml").write_text("hiden_size: 3\nvocab_size: 300\n")
    with pytest.raises(DataError, match="hiden_size unknown to Qwen3Config"):
        main([*from_config(workshop, tmp_path / "x"), "--from_config", str(tmp_path / "config.yaml")])
    with pytest.raises(ContractError, match="nowhere: no such folder"):
        main(["--model", "nowhere", "--codec", str(workshop.codec), "--output", str(tmp_path / "x")])
    with pytest.raises(DataError, match="no such file"):
        main([*from_config(workshop, tmp_path / "x"), "--texts", "none.json"])
    for wrong, message in [
        (["--codec", "c", "--output", "o"], "either --model or --from_config"),
        (["--codec", "c", "--output", "o", "--from_config", "x"], "needs --texts"),
        (["--codec", "c", "--output", "o", "--model", "x", "--dtype", "int8"], "--dtype is one of"),
        (["--codec", "c", "--output", "o", "--model", "x", "--initialisation", "zeros"], "invalid choice"),
    ]:
        with pytest.raises(SystemExit) as exit_info:
            main(wrong)
        assert exit_info.value.code == 2 and message in capsys.readouterr().err


def test_help_is_quick_and_light() -> None:
    code = f"""
import runpy, sys
sys.argv = ["extend_vocabulary.py", "--help"]
try:
    runpy.run_path({str(ROOT / "recipes" / "extend_vocabulary.py")!r}, run_name="__main__")
except SystemExit:
    assert "torch" not in sys.modules
"""
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert "python recipes/extend_vocabulary.py --model Qwen/Qwen3-0.6B" in out and "--initialisation" in out


def test_tiny_configuration_is_about_a_million(main: Any, workshop: Any, tmp_path: Path) -> None:
    arguments = from_config(workshop, tmp_path / "tiny")
    tiny = ROOT / "recipes" / "configs" / "tiny" / "language_model.yaml"
    main([*arguments, "--from_config", str(tiny)])
    model = load_checkpoint(tmp_path / "tiny").model
    assert 700_000 < sum(p.numel() for p in model.parameters()) < 1_300_000
    assert json.loads((tmp_path / "tiny" / "config.json").read_text())["tie_word_embeddings"] is True
