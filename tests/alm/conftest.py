"""A language model small enough for every test, built from a configuration and grown by a toy codec."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase, Qwen3Config, Qwen3ForCausalLM

from alm.checkpoint import LoadedCheckpoint
from alm.growing import grow_vocabulary
from alm.processing import AudioLanguageProcessor
from alm.tokenizer import train_tokenizer

TEXTS = [
    "What sound is heard in the recording?",
    "a dog barks twice, then a bell rings",
    "Zürich, 東京 and naïve café 😀",
]

TextModel = tuple[PreTrainedModel, PreTrainedTokenizerBase]


@pytest.fixture
def make_text_model() -> Callable[..., TextModel]:
    """A function that makes a Qwen3 of width 32 without audio tokens, and its tokenizer."""

    def make(tied: bool = True, spare_rows: int = 20, seed: int = 0, head_dim: int = 8) -> TextModel:
        tokenizer = train_tokenizer(TEXTS * 4, 340)
        torch.manual_seed(seed)
        config = Qwen3Config(
            vocab_size=len(tokenizer) + spare_rows,  # Qwen3's embedding, too, has more rows than its tokenizer has ids
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=head_dim,  # vLLM's CPU attention takes 32, 64, 96, … only
            max_position_embeddings=512,
            tie_word_embeddings=tied,
        )
        return Qwen3ForCausalLM(config).eval(), tokenizer

    return make


@pytest.fixture
def make_language_model(make_text_model: Callable[..., TextModel], toy_codec: Any) -> Callable[..., LoadedCheckpoint]:
    """A function that makes such a model grown by a codec (default: the toy codec), with its processor."""

    def make(codec: Any = None, max_length: int | None = 512, **options: Any) -> LoadedCheckpoint:
        codec = codec or toy_codec
        model, tokenizer = make_text_model(**options)
        vocabulary = grow_vocabulary(model, tokenizer, codec)
        processor = AudioLanguageProcessor(tokenizer, vocabulary, max_length=max_length)
        processor.codec = codec
        return LoadedCheckpoint(model, processor)

    return make


@pytest.fixture
def language_model(make_language_model: Callable[..., LoadedCheckpoint]) -> LoadedCheckpoint:
    """The tiny model with 64 audio tokens."""
    return make_language_model()
