"""A tiny random model with a real (random) codec, saved once for all scripts' tests."""

from pathlib import Path

import pytest
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from alm.checkpoint import save_checkpoint
from alm.growing import grow_vocabulary
from alm.processing import AudioLanguageProcessor
from alm.tokenizer import train_tokenizer
from codec import EntangleCodec, EntangleCodecConfig, EntangleCodecModel


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
    tokenizer = train_tokenizer(["Which sound is heard? a dog, a cat, a bell, rain"] * 4, 320)
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
