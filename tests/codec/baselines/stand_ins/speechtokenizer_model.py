"""Stands in for `speechtokenizer.model`: the documented interface over one convolution each way, nothing else of the package."""

import math

import torch
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


class SpeechTokenizer(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.n_q, self.hop, width = config["n_q"], math.prod(config["strides"]), config["dimension"]
        self.encoder = nn.Conv1d(1, width, self.hop, self.hop)
        self.decoder = nn.ConvTranspose1d(width, 1, self.hop, self.hop)
        self.quantizer = nn.Module()
        self.quantizer.vq = nn.Module()
        self.quantizer.vq.layers = nn.ModuleList(Layer(config["codebook_size"], width) for _ in range(self.n_q))

    def encode(self, x, n_q=None):
        """Codes `(n_q, B, T)` of waveforms `(B, 1, S)`."""
        residual = self.encoder(nn.functional.pad(x, (0, -x.shape[-1] % self.hop))).transpose(1, 2)
        codes = []
        for layer in self.quantizer.vq.layers[: n_q or self.n_q]:
            codes.append(torch.cdist(residual, layer.codebook).argmin(-1))
            residual = residual - layer.codebook[codes[-1]]
        return torch.stack(codes)

    def decode(self, codes):
        """Waveforms `(B, 1, S)` of codes `(n_q, B, T)`."""
        layers = self.quantizer.vq.layers
        return self.decoder(sum(layer.codebook[row] for layer, row in zip(layers, codes, strict=False)).transpose(1, 2))
