"""A tiny random model with a real (random) codec, saved once for all scripts' tests."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from alm.checkpoint import save_checkpoint
from alm.growing import grow_vocabulary
from alm.processing import AudioLanguageProcessor
from alm.tokenizer import train_tokenizer
from codec import EntangleCodec, EntangleCodecConfig, EntangleCodecModel
from codec.audio import write_audio

CHOICES = [["a dog", "a cat", "a bell"], ["one", "two"], ["rain", "the sea", "a roof", "wind"]]


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    torch.manual_seed(0)
    small = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = EntangleCodecConfig(
        **small,
        **{f"decoder_{name}": value for name, value in small.items()},
        **{f"text_{name}": value for name, value in small.items()},
        codebook_size=32,
        projection_size=8,
        text_vocab_size=64,
        conditioning="add",
    )
    codec = EntangleCodec(EntangleCodecModel(config))
    codec.save_pretrained(folder / "codec")
    return save_model(codec, folder, ["Which sound is heard? a dog, a cat, a bell, rain"] * 4)


@pytest.fixture(scope="session")
def speaker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One whose codec has a vocoder, so that it makes sounds."""
    folder = tmp_path_factory.mktemp("speaker")
    torch.manual_seed(0)
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    parts = {f"{part}{name}": value for part in ("", "decoder_", "text_") for name, value in small.items()}
    vocoder = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    model = EntangleCodecModel(EntangleCodecConfig(**parts, codebook_size=32, conditioning="add", vocoder=vocoder))
    with torch.no_grad():  # a decoder begins at zero, and would be silent
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    codec = EntangleCodec(model)
    codec.save_pretrained(folder / "codec")
    captions = ["rain", "a dog barks", "a bell rings", "wind and rain", "a dog and a bell", "wind"]
    return save_model(codec, folder, captions * 8)


def save_model(codec: EntangleCodec, folder: Path, texts: list[str]) -> Path:
    """A Qwen3 of width 32 grown by the codec that lies in `folder/codec`."""
    tokenizer = train_tokenizer(texts, 320)
    model = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=8,
            initializer_range=0.5,
            tie_word_embeddings=True,
        )
    )
    vocabulary = grow_vocabulary(model, tokenizer, codec, initialisation="gaussian")
    processor = AudioLanguageProcessor(tokenizer, vocabulary, codec_reference=str(folder / "codec"))
    save_checkpoint(model, processor, folder / "model")
    return folder / "model"


@pytest.fixture(scope="session")
def kill_when() -> Callable[..., None]:
    """Run a script in a process and kill it as soon as `log` has so many `rows`; a torn line is left behind, as amid a write."""

    def kill(script: Path, given: list[str], log: Path, rows: int) -> None:
        process = subprocess.Popen([sys.executable, str(script), *given], stderr=subprocess.DEVNULL)
        while process.poll() is None and not (log.exists() and log.read_bytes().count(b"\n") >= rows):
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        with log.open("ab") as file:
            file.write(b'{"id": "torn')

    return kill


@pytest.fixture
def benchmark(tmp_path: Path) -> Path:
    """Ten questions in MMAR's form, with clips of differing lengths."""
    generator, rows = np.random.default_rng(0), []
    for number in range(10):
        seconds = 0.2 + 0.1 * (number % 4)
        write_audio(tmp_path / "audio" / f"q{number}.wav", generator.normal(0, 0.1, int(24_000 * seconds)), 24_000)
        choices = CHOICES[number % 3]
        rows.append(
            {
                "id": f"q{number}",
                "audio_path": f"./audio/q{number}.wav",
                "question": "Which sound is heard?",
                "choices": choices,
                "answer": choices[number % len(choices)],
                "modality": ["sound", "speech"][number % 2],
                "category": "Perception Layer",
                "sub-category": "Counting",
                "language": None,
            }
        )
    path = tmp_path / "MMAR-meta.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path
