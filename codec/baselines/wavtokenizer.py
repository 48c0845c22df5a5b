"""WavTokenizer (Ji et al. 2025, https://arxiv.org/abs/2408.16532): one codebook of 4,096 codes at 40 or 75 frames a second.

Transformers has the class since 5.24 and the Hub a converted model at 40 frames. The paper's other operating point, 75 frames,
exists only as a checkpoint of the authors' repository, which has no package: the user names a checkout.
"""

import importlib
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, from_numpy, nn

from codec.base import Waveform
from codec.baselines.base import BaselineCodec, Shape
from codec.baselines.checkout import existing_file, existing_folder, fill, foreign_packages, read_weights
from codec.baselines.pretrained import TransformersCodec

GET = (
    "Get it with: git clone https://github.com/jishengpeng/WavTokenizer, pip install einops scipy pyyaml and a torchaudio that fits your "
    "torch; then load_codec('wavtokenizer', checkout=FOLDER, config=FILE.yaml, checkpoint=FILE.ckpt), both files as its README lists them"
)


class WavTokenizerCodec(TransformersCodec):
    """`WavTokenizerModel`."""

    model_class = "WavTokenizerModel"
    since = "5.24"
    decoder_parts = ("backbone.", "head.")

    @classmethod
    def _shape(cls, model: Any) -> Shape:
        config = model.config
        return Shape(config.sampling_rate, config.sampling_rate / config.hop_length, 1, config.codebook_size)

    def _model_codes(self, inputs: dict[str, Tensor]) -> Tensor:
        codes: Tensor = self.model.encode(inputs["input_values"]).audio_codes
        return codes

    def _decode(self, codes: Tensor) -> Tensor:
        waveform: Tensor = self.model.decode(codes[None]).audio_values[0, 0]
        return waveform

    def _codebooks(self) -> list[Tensor]:
        return [self.model.encoder_model.quantizer.codebook.embed]


class WavTokenizerCheckout(BaselineCodec):
    """`decoder.pretrained.WavTokenizer` of a checkout of the authors' repository (commit 5cf440d was read)."""

    # the encoder half of an EnCodec is in use, its decoder half is not
    decoder_parts = ("backbone.", "head.", "feature_extractor.encodec.decoder.")

    def __init__(self, model: nn.Module, settings: dict[str, Any], num_codebooks: int | None = None) -> None:
        foreign: Any = model
        encodec = foreign.feature_extractor.encodec
        rate = encodec.sample_rate
        shape = Shape(rate, rate / encodec.encoder.hop_length, 1, encodec.quantizer.bins)
        super().__init__(model, shape, num_codebooks)
        self.settings = settings

    @classmethod
    def load(
        cls,
        checkout: str | Path | None = None,
        device: str = "cpu",
        num_codebooks: int | None = None,
        config: str | Path | None = None,
        checkpoint: str | Path | None = None,
    ) -> "WavTokenizerCheckout":
        """Load from the folder `checkout` with the files `config` (YAML) and `checkpoint`. Raises `CheckpointError`."""
        folder = existing_folder(checkout, "checkout", GET)
        numbers, weights = existing_file(config, "config", GET), existing_file(checkpoint, "checkpoint", GET)
        settings = yaml.safe_load(numbers.read_text(encoding="utf-8"))["model"]["init_args"]["feature_extractor"]
        # built inside, too: it imports the classes that its YAML names by their top-level packages
        with foreign_packages(folder, "encoder", "decoder", how_to_get=GET):
            model = importlib.import_module("decoder.pretrained").WavTokenizer.from_hparams0802(str(numbers))
        tensors = read_weights(weights)
        parts = ("backbone.", "head.", "feature_extractor.")  # the file may hold the discriminators, too
        tensors = {name: value for name, value in tensors.get("state_dict", tensors).items() if name.startswith(parts)}
        fill(model, tensors, weights)
        return cls(model.to(device), settings, num_codebooks)

    def _encode(self, waveform: Waveform) -> Tensor:
        audio = from_numpy(waveform).to(self.device)[None]
        _, codes = self.model.encode_infer(audio, bandwidth_id=self._bandwidth)
        found: Tensor = codes[:, 0]  # (K, 1, T)
        return found

    def _decode(self, codes: Tensor) -> Tensor:
        features = self.model.codes_to_features(codes[:, None])
        waveform: Tensor = self.model.decode(features, bandwidth_id=self._bandwidth)
        return waveform[0]

    @property
    def _bandwidth(self) -> Tensor:
        return torch.tensor([0], device=self.device)  # the only one that is used after training

    def _codebooks(self) -> list[Tensor]:
        return [layer.codebook for layer in self.model.feature_extractor.encodec.quantizer.vq.layers]

    def _settings(self) -> dict[str, Any]:
        return self.settings
