"""DAC (Kumar et al. 2023, https://arxiv.org/abs/2306.06546): `descript/dac_16khz`, `_24khz`, `_44khz`."""

from typing import Any

from torch import Tensor

from codec.baselines.base import Shape
from codec.baselines.pretrained import TransformersCodec


class DacCodec(TransformersCodec):
    """`DacModel`. Its feature extractor pads a clip with zeros to whole frames; the decoder's odd strides lose some samples at the end."""

    model_class = "DacModel"
    decoder_parts = ("decoder.",)

    @classmethod
    def _shape(cls, model: Any) -> Shape:
        config = model.config  # config.frame_rate is rounded up: 87 for the 86.13 of 44.1 kHz
        return Shape(
            config.sampling_rate, config.sampling_rate / config.hop_length, config.n_codebooks, config.codebook_size
        )

    def _model_codes(self, inputs: dict[str, Tensor]) -> Tensor:
        codes: Tensor = self.model.encode(inputs["input_values"], n_quantizers=self.num_codebooks).audio_codes
        return codes

    def _decode(self, codes: Tensor) -> Tensor:
        waveform: Tensor = self.model.decode(audio_codes=codes[None]).audio_values[0]
        return waveform

    def _codebooks(self) -> list[Tensor]:
        return [layer.codebook.weight for layer in self.model.quantizer.quantizers]
