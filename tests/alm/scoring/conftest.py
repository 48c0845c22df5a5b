"""A tiny random Qwen3 that was grown by a toy codec, with the real processor."""

from typing import Any

import pytest
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from alm.checkpoint import LoadedCheckpoint
from alm.growing import grow_vocabulary
from alm.processing import AudioLanguageProcessor
from alm.tokenizer import train_tokenizer


@pytest.fixture
def tiny(make_toy_codec: Any) -> LoadedCheckpoint:
    """Model of 2 layers and width 32; large weights, so that its answers depend on what it reads."""
    texts = ["Which sound is heard? a dog, a cat, a bell, three violins, the rain on a roof"] * 4
    tokenizer = train_tokenizer(texts, 320)
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        initializer_range=0.5,
    )
    model = Qwen3ForCausalLM(config)
    codec = make_toy_codec()
    vocabulary = grow_vocabulary(model, tokenizer, codec)
    processor = AudioLanguageProcessor(tokenizer, vocabulary, max_length=1024)
    processor.codec = codec
    return LoadedCheckpoint(model.eval(), processor)
