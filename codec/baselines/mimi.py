"""Mimi (Défossez et al. 2024, https://arxiv.org/abs/2410.00037): `kyutai/mimi`."""

from typing import Any

from torch import Tensor

from codec.baselines.base import BaselineError, Shape
from codec.baselines.pretrained import TransformersCodec


class MimiCodec(TransformersCodec):
    """`MimiModel`: the first codebook is semantic, the others are residual."""

    model_class = "MimiModel"
    # the first alone in newer versions of Transformers, the others beside it in older ones
    decoder_parts = ("decoder.", "decoder_transformer.", "upsample.")

    def __init__(self, model: Any, feature_extractor: Any, num_codebooks: int | None = None) -> None:
        super().__init__(model, feature_extractor, num_codebooks)
        if self.num_codebooks < model.config.num_semantic_quantizers:
            raise BaselineError(
                f"this Mimi has {model.config.num_semantic_quantizers} semantic codebooks; num_codebooks must be at least that, "
                f"got {self.num_codebooks}"
            )

    @classmethod
    def _shape(cls, model: Any) -> Shape:
        config = model.config
        return Shape(config.sampling_rate, float(config.frame_rate), config.num_quantizers, config.codebook_size)

    def _model_codes(self, inputs: dict[str, Tensor]) -> Tensor:
        codes: Tensor = self.model.encode(inputs["input_values"], num_quantizers=self.num_codebooks).audio_codes
        return codes

    def _decode(self, codes: Tensor) -> Tensor:
        waveform: Tensor = self.model.decode(codes[None]).audio_values[0, 0]
        return waveform

    def _codebooks(self) -> list[Tensor]:
        quantizer = self.model.quantizer
        parts = (quantizer.semantic_residual_vector_quantizer, quantizer.acoustic_residual_vector_quantizer)
        return [layer.codebook.embed for part in parts for layer in part.layers]
