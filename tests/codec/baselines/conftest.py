"""Tiny random models of the real classes, saved as checkpoints that `load_codec` reads like any other."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from numpy.typing import NDArray

from codec.baselines.xcodec2 import Xcodec2FrontEnd

Clips = list[NDArray[np.float32]]
DAC = {"encoder_hidden_size": 4, "decoder_hidden_size": 32, "downsampling_ratios": [2, 4, 5, 8]}
TRANSFORMER = {"num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}


def noise() -> torch.Tensor:
    return 0.2 * torch.randn(24_000)


def spread(codebooks: list[Any], encoder: Any) -> None:
    """Draw codebooks from where the encoder's outputs are (Transformers creates them as zeros); residual ones smaller and smaller."""
    latents = encoder(noise()[None, None])[0]  # (D, T)
    mean, std = latents.mean(1), latents.std(1)
    for index, codebook in enumerate(codebooks):
        codebook.embed.normal_().mul_(std * 0.5**index).add_(mean if index == 0 else 0.0)


def dac() -> Any:
    return transformers.DacModel(transformers.DacConfig(**DAC, n_codebooks=3, codebook_size=64))


def encodec() -> Any:
    # bandwidths of 2 and 4 codebooks of 64 codes at 75 frames a second: one codebook is below the smallest, as in the real model
    config = transformers.EncodecConfig(
        num_filters=4, hidden_size=16, codebook_size=64, target_bandwidths=[0.9, 1.8], num_lstm_layers=1
    )
    model = transformers.EncodecModel(config)
    spread([layer.codebook for layer in model.quantizer.layers], model.encoder)
    return model


def mimi() -> Any:
    config = transformers.MimiConfig(
        **TRANSFORMER,
        hidden_size=32,
        num_filters=4,
        codebook_size=64,
        codebook_dim=16,
        vector_quantization_hidden_dimension=16,
        num_quantizers=4,
        num_key_value_heads=2,
        upsample_groups=32,
        sliding_window=16,
        layer_scale_initial_scale=0.5,
    )
    model = transformers.MimiModel(config)
    for part in (
        model.quantizer.semantic_residual_vector_quantizer,
        model.quantizer.acoustic_residual_vector_quantizer,
    ):
        for layer in part.layers:
            layer.codebook.embed_sum.normal_()
    return model


def xcodec() -> Any:
    # HuBERT's strides as they are (320 samples a frame), its widths not
    semantic = transformers.HubertConfig(
        **TRANSFORMER, hidden_size=16, conv_dim=[8] * 7, num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=4
    )
    acoustic = transformers.DacConfig(**DAC, hidden_size=16)
    # 6 bits at 50 frames a second: bandwidths of 1, 2 and 4 codebooks
    config = transformers.XcodecConfig(
        acoustic_model_config=acoustic,
        semantic_model_config=semantic,
        codebook_size=64,
        target_bandwidths=[0.3, 0.6, 1.2],
    )
    model = transformers.XcodecModel(config)
    for layer in model.quantizer.quantizers:
        layer.codebook.embed.normal_()
    return model


def xcodec2() -> Any:
    semantic = transformers.Wav2Vec2BertConfig(**TRANSFORMER, hidden_size=32, feature_projection_input_dim=160)
    config = transformers.Xcodec2Config(
        **TRANSFORMER,
        hidden_size=64,
        num_key_value_heads=2,
        head_dim=32,
        encoder_hidden_size=4,
        semantic_model_config=semantic,
        quantization_dim=96,
        quantization_levels=[4, 4, 4],
    )
    model = transformers.Xcodec2Model(config).eval()
    projected = []
    hook = model.quantizer.project_in.register_forward_hook(lambda _, __, output: projected.append(output))
    model.encode(**Xcodec2FrontEnd(16_000, 320)(noise().numpy()))
    hook.remove()
    mean, std = projected[0].mean((0, 1)), projected[0].std((0, 1))
    layer = model.quantizer.project_in  # to where FSQ's grid is
    layer.weight.div_(std[:, None])
    layer.bias.sub_(mean).div_(std)
    return model


def wavtokenizer() -> Any:
    config = transformers.WavTokenizerConfig(
        num_filters=4,
        hidden_size=32,
        codebook_size=64,
        codebook_dim=32,
        num_lstm_layers=1,
        decoder_hidden_size=64,
        decoder_intermediate_size=48,
        decoder_num_layers=2,
    )
    model = transformers.WavTokenizerModel(config)
    spread([model.encoder_model.quantizer.codebook], model.encoder_model.encoder)
    return model


class Tiny:
    """What a tiny checkpoint is made of, and the numbers that its codec must report."""

    def __init__(
        self, make: Callable[[], Any], extractor: Callable[[], Any] | None, rate: int, hop: int, codebooks: int
    ) -> None:
        self.make, self.extractor, self.rate, self.hop, self.codebooks = make, extractor, rate, hop, codebooks

    def save(self, folder: Path, seed: int = 0) -> Path:
        """Weights drawn from `seed`, codebooks included."""
        torch.manual_seed(seed)
        with torch.no_grad():
            model = self.make()
        model.save_pretrained(folder)
        if self.extractor is not None:
            self.extractor().save_pretrained(folder)
        return folder


TINY = {
    "dac": Tiny(dac, lambda: transformers.DacFeatureExtractor(sampling_rate=16_000, hop_length=320), 16_000, 320, 3),
    "encodec": Tiny(encodec, lambda: transformers.EncodecFeatureExtractor(sampling_rate=24_000), 24_000, 320, 4),
    "mimi": Tiny(mimi, lambda: transformers.EncodecFeatureExtractor(sampling_rate=24_000), 24_000, 1920, 4),
    "xcodec": Tiny(
        xcodec, lambda: transformers.DacFeatureExtractor(sampling_rate=16_000, hop_length=320), 16_000, 320, 4
    ),
    "xcodec2": Tiny(xcodec2, None, 16_000, 320, 1),
    "wavtokenizer": Tiny(wavtokenizer, lambda: transformers.WavTokenizerFeatureExtractor(), 24_000, 600, 1),
}
if not hasattr(transformers, "WavTokenizerModel"):  # before 5.24
    del TINY["wavtokenizer"]


@pytest.fixture(params=sorted(TINY))
def name(request: pytest.FixtureRequest) -> str:
    """Name of a baseline that Transformers has."""
    found: str = request.param
    return found


@pytest.fixture
def tiny(name: str) -> Tiny:
    return TINY[name]


@pytest.fixture(scope="session")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Folder with the tiny checkpoint of a name, written once."""
    made: dict[str, Path] = {}

    def folder(name: str) -> Path:
        if name not in made:
            made[name] = TINY[name].save(tmp_path_factory.mktemp(name))
        return made[name]

    return folder


@pytest.fixture
def folder(name: str, folder_of: Callable[[str], Path]) -> Path:
    return folder_of(name)


@pytest.fixture
def clips() -> Clips:
    """Noise with a slow envelope, from one sample to half a second, lengths of whole frames and not."""
    rng = np.random.default_rng(0)
    lengths = (1, 319, 320, 1_920, 5_001, 9_600)
    return [(0.2 * rng.standard_normal(n) * (1 + np.sin(np.arange(n) / 3_000))).astype(np.float32) for n in lengths]
