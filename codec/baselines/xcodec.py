"""X-Codec (Ye et al. 2025, https://arxiv.org/abs/2408.17175): `hf-audio/xcodec-hubert-general-balanced` and its four siblings."""

from typing import Any

from torch import Tensor

from codec.baselines.base import Shape
from codec.baselines.pretrained import TransformersCodec, smallest_bandwidth


class XcodecCodec(TransformersCodec):
    """`XcodecModel`: HuBERT (or WavLM) features beside acoustic ones. The paper does not name its checkpoint."""

    model_class = "XcodecModel"
    decoder_parts = ("acoustic_decoder.", "decoder_semantic.", "fc1.", "fc2.")

    @classmethod
    def _shape(cls, model: Any) -> Shape:
        config = model.config
        frame_rate = config.sample_rate / config.hop_length
        return Shape(config.sample_rate, frame_rate, config.num_quantizers, config.codebook_size)

    def _model_codes(self, inputs: dict[str, Tensor]) -> Tensor:
        bandwidth = smallest_bandwidth(
            self.model.config.target_bandwidths,
            self.model.quantizer.get_num_quantizers_for_bandwidth,
            self.num_codebooks,
        )
        codes: Tensor = self.model.encode(inputs["input_values"], bandwidth=bandwidth).audio_codes
        return codes

    def _decode(self, codes: Tensor) -> Tensor:
        waveform: Tensor = self.model.decode(codes[None]).audio_values[0, 0]
        return waveform

    def _codebooks(self) -> list[Tensor]:
        return [layer.codebook.embed for layer in self.model.quantizer.quantizers]
