"""X-Codec2 (Ye et al. 2025, https://arxiv.org/abs/2502.04128): `HKUSTAudio/xcodec2-hf` (weights CC-BY-NC-4.0)."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from codec.base import Waveform
from codec.baselines.base import Shape
from codec.baselines.kaldi import kaldi_fbank
from codec.baselines.pretrained import TransformersCodec


@dataclass(frozen=True)
class Xcodec2FrontEnd:
    """Waveform and mel of one clip, as `Xcodec2FeatureExtractor` makes them, without torchaudio."""

    sampling_rate: int
    hop_length: int

    def __call__(self, waveform: Waveform, **_: Any) -> dict[str, Tensor]:
        """`input_values` `(1, 1, T × hop)` and `input_features` `(1, T, 160)` with its mask, of `(S,)`.

        `T = floor(S / hop) + 1`: a clip of whole frames gains one, as in the original. The mel is normalised per clip and band, and
        two of its frames make one of the codec's.
        """
        samples = F.pad(torch.from_numpy(waveform), (0, 1))
        samples = F.pad(samples, (0, -len(samples) % self.hop_length))
        half = self.hop_length // 2
        mel = kaldi_fbank(F.pad(samples, (half, half)) * 2**15)  # (2 T, 80)
        mel = (mel - mel.mean(0)) / torch.sqrt(mel.var(0, unbiased=True) + 1e-7)
        features = mel.reshape(1, -1, 2 * mel.shape[1])
        mask = torch.ones(features.shape[:2], dtype=torch.long)
        return {"input_values": samples[None, None], "input_features": features, "input_features_mask": mask}

    def save_pretrained(self, path: str | Path) -> None:
        """Nothing to write: both numbers are the model's."""


class Xcodec2Codec(TransformersCodec):
    """`Xcodec2Model`: one codebook of 65,536 codes, the points of a grid (FSQ)."""

    model_class = "Xcodec2Model"
    decoder_parts = ("acoustic_decoder.", "quantizer.project_out.")

    @classmethod
    def _load_feature_extractor(cls, path: str | Path, model: Any, **options: Any) -> Any:
        return Xcodec2FrontEnd(model.config.sampling_rate, model.config.hop_length)

    @classmethod
    def _shape(cls, model: Any) -> Shape:
        config = model.config
        size = math.prod(config.quantization_levels)
        return Shape(config.sampling_rate, config.sampling_rate / config.hop_length, 1, size)

    def _model_codes(self, inputs: dict[str, Tensor]) -> Tensor:
        codes: Tensor = self.model.encode(**inputs).audio_codes
        return codes

    def _decode(self, codes: Tensor) -> Tensor:
        waveform: Tensor = self.model.decode(audio_codes=codes[None]).audio_values[0, 0]
        return waveform

    def _codebooks(self) -> list[Tensor]:
        return [self.model.quantizer.quantizer.codebook]
