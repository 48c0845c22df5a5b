"""A codec of the real classes, small enough to build in milliseconds."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from codec import EntangleCodecConfig, EntangleCodecForPreTraining
from codec.transformer import ZeroLinear

SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "codebook_size": 64,
    "codebook_dim": 8,
    "decoder_hidden_size": 32,
    "decoder_num_hidden_layers": 2,
    "decoder_num_attention_heads": 2,
    "decoder_intermediate_size": 64,
    "projection_size": 16,
    "text_vocab_size": 64,
    "text_max_length": 24,
    "text_hidden_size": 16,
    "text_num_hidden_layers": 1,
    "text_num_attention_heads": 2,
    "text_intermediate_size": 32,
    "mel": {"mean": -6.0, "std": 3.0},
}
VOCODER = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}


@pytest.fixture
def make_config() -> Callable[..., EntangleCodecConfig]:
    """Small configuration; keyword arguments replace its numbers."""
    return lambda **numbers: EntangleCodecConfig(**{**SMALL, **numbers})


@pytest.fixture
def model(make_config: Callable[..., EntangleCodecConfig]) -> EntangleCodecForPreTraining:
    """Stage-1 model with a vocoder, whose zero-initialised layers are shaken so that nothing is trivially the identity."""
    torch.manual_seed(0)
    model = EntangleCodecForPreTraining(make_config(vocoder=VOCODER)).eval()
    for layer in model.modules():
        if isinstance(layer, ZeroLinear):
            torch.nn.init.normal_(layer.weight, std=0.1)
    return model


@pytest.fixture
def clips() -> list[NDArray[np.float32]]:
    """Noise with a slow envelope, of lengths from one sample to two seconds."""
    rng = np.random.default_rng(0)
    lengths = (1, 271, 273, 480, 481, 9_999, 24_000, 48_000)
    return [(0.2 * rng.standard_normal(n) * (1 + np.sin(np.arange(n) / 3_000))).astype(np.float32) for n in lengths]
