"""Serving starts only for a folder that keeps its contract, with the engine's own command."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from alm.serving.launch import main


def launch(monkeypatch: pytest.MonkeyPatch, *flags: str) -> None:
    monkeypatch.setattr(sys, "argv", ["launch", *flags, "--dry_run"])
    main()


@pytest.mark.parametrize(
    ("engine", "starts", "holds"),
    [
        ("transformers", "transformers serve", "--port 8123 --dtype float32"),
        ("vllm", "vllm serve", "--logits-processors alm.serving.vllm_grammar:AudioReplies --dtype float32"),
    ],
)
def test_the_command_is_the_engines_own(
    served: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    engine: str,
    starts: str,
    holds: str,
) -> None:
    folder = str(served.folder)
    launch(monkeypatch, "--model", folder, "--engine", engine, "--port", "8123", "--options=--dtype float32")
    printed = capsys.readouterr().out
    assert printed.startswith(f"{starts} {folder} ") and printed.rstrip().endswith(holds)


def test_a_broken_contract_is_not_served(served: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "broken"
    shutil.copytree(served.folder, folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["audio_vocabulary"]["first_id"] += 1
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(ValueError, match="breaks its vocabulary contract"):
        launch(monkeypatch, "--model", str(folder))


def test_another_codec_is_not_served(served: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "other"
    shutil.copytree(served.folder, folder)
    processor = json.loads((folder / "processor_config.json").read_text(encoding="utf-8"))
    (folder / "processor_config.json").write_text(
        json.dumps({**processor, "codec_reference": "codec"}), encoding="utf-8"
    )
    with pytest.raises(ValueError, match="codec_fingerprint"):
        launch(monkeypatch, "--model", str(folder))


def test_a_gguf_file_of_another_vocabulary_is_not_served(
    served: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    gguf = pytest.importorskip("gguf")
    from alm.serving.export_gguf import CONTRACT_KEY, export_gguf

    flags = ["--model", str(served.folder), "--engine", "llama.cpp", "--gguf"]
    export_gguf(served.folder, tmp_path / "right.gguf", "f32")
    launch(monkeypatch, *flags, str(tmp_path / "right.gguf"))
    assert capsys.readouterr().out.startswith("llama-server --model")
    for name, contract in {"other": {**served.processor.vocabulary.to_dict(), "rows": 1}, "none": None}.items():
        writer = gguf.GGUFWriter(tmp_path / f"{name}.gguf", "qwen3")
        if contract is not None:
            writer.add_string(CONTRACT_KEY, json.dumps(contract))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        with pytest.raises(ValueError, match="vocabulary"):
            launch(monkeypatch, *flags, str(tmp_path / f"{name}.gguf"))


@pytest.mark.parametrize("flags", [["--engine", "triton"], ["--engine", "llama.cpp"], ["--gguf", "x.gguf"]])
def test_wrong_flags_end_at_once(monkeypatch: pytest.MonkeyPatch, flags: list[str]) -> None:
    with pytest.raises(SystemExit):
        launch(monkeypatch, "--model", "nowhere", *flags)
