"""Stands in for `decoder.pretrained` of the WavTokenizer repository: its README's interface over one convolution each way."""

import math
from pathlib import Path

import torch
import yaml
from encoder import HOP_NAME
from torch import nn


class Codebook(nn.Module):
    def __init__(self, size, dimension):
        super().__init__()
        self.register_buffer("inited", torch.zeros(1))
        self.register_buffer("embed", torch.randn(size, dimension))


class Layer(nn.Module):
    def __init__(self, size, dimension):
        super().__init__()
        self._codebook = Codebook(size, dimension)

    @property
    def codebook(self):
        return self._codebook.embed


class WavTokenizer(nn.Module):
    def __init__(self, numbers):
        super().__init__()
        hop, width = math.prod(numbers[HOP_NAME]), 16
        encodec = nn.Module()
        encodec.sample_rate = 24_000
        encodec.encoder = nn.Conv1d(1, width, hop, hop)
        encodec.encoder.hop_length = hop
        encodec.quantizer = nn.Module()
        encodec.quantizer.bins = numbers["vq_bins"]
        encodec.quantizer.vq = nn.Module()
        encodec.quantizer.vq.layers = nn.ModuleList([Layer(numbers["vq_bins"], width)])
        self.feature_extractor = nn.Module()
        self.feature_extractor.encodec = encodec
        self.backbone = nn.Conv1d(width, width, 3, padding=1)
        self.head = nn.ConvTranspose1d(width, 1, hop, hop)

    @classmethod
    def from_hparams0802(cls, config_path):
        settings = yaml.safe_load(Path(config_path).read_text())
        return cls(settings["model"]["init_args"]["feature_extractor"]["init_args"])

    def encode_infer(self, audio, bandwidth_id):
        """Features and codes `(1, B, T)` of waveforms `(B, S)`."""
        assert bandwidth_id.tolist() == [0]
        encodec = self.feature_extractor.encodec
        padded = nn.functional.pad(audio, (0, -audio.shape[-1] % encodec.encoder.hop_length))
        codebook = encodec.quantizer.vq.layers[0].codebook
        codes = torch.cdist(encodec.encoder(padded[:, None]).transpose(1, 2), codebook).argmin(-1)[None]
        return self.codes_to_features(codes), codes

    def codes_to_features(self, codes):
        """Features `(B, D, T)` of codes `(1, B, T)`."""
        return self.feature_extractor.encodec.quantizer.vq.layers[0].codebook[codes[0]].transpose(1, 2)

    def decode(self, features, bandwidth_id):
        """Waveforms `(B, S)`."""
        assert bandwidth_id.tolist() == [0]
        return self.head(self.backbone(features))[:, 0]
