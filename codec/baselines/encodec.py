"""EnCodec (Défossez et al. 2023, https://arxiv.org/abs/2210.13438): `facebook/encodec_24khz`."""

from typing import Any

from torch import Tensor

from codec.baselines.base import BaselineError, Shape
from codec.baselines.pretrained import TransformersCodec, smallest_bandwidth


class EncodecCodec(TransformersCodec):
    """`EncodecModel`, mono and whole clips.

    The paper's one codebook is below the smallest bandwidth that the model was trained for (1.5 kbit/s, two codebooks): encoded
    at the smallest bandwidth that has enough codebooks, the first `K` are kept (https://github.com/facebookresearch/encodec/issues/39).
    """

    model_class = "EncodecModel"
    decoder_parts = ("decoder.",)

    @classmethod
    def _shape(cls, model: Any) -> Shape:
        config = model.config
        if config.normalize or config.chunk_length_s is not None or config.audio_channels != 1:
            raise BaselineError(
                "this EnCodec normalises or cuts into chunks (the 48-kHz stereo model does): its scales are not in the codes, so they "
                "decode to nothing. Use facebook/encodec_24khz"
            )
        frame_rate = config.sampling_rate / config.hop_length
        return Shape(config.sampling_rate, frame_rate, config.num_quantizers, config.codebook_size)

    def _model_codes(self, inputs: dict[str, Tensor]) -> Tensor:
        bandwidth = smallest_bandwidth(
            self.model.config.target_bandwidths,
            self.model.quantizer.get_num_quantizers_for_bandwidth,
            self.num_codebooks,
        )
        codes: Tensor = self.model.encode(inputs["input_values"], bandwidth=bandwidth).audio_codes  # (1 chunk, 1, K, T)
        return codes[0]

    def _decode(self, codes: Tensor) -> Tensor:
        waveform: Tensor = self.model.decode(codes[None, None], [None]).audio_values[0, 0]
        return waveform

    def _codebooks(self) -> list[Tensor]:
        return [layer.codebook.embed for layer in self.model.quantizer.layers]
