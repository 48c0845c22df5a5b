"""Stands in for `xy_tokenizer.model` of the XY-Tokenizer repository: the interface of its `inference.py`, without windows of 30 s."""

import torch
from torch import nn

from .nn.quantizer import Layer


class XY_Tokenizer(nn.Module):  # noqa: N801
    def __init__(self, generator_params):
        super().__init__()
        numbers = generator_params["quantizer_kwargs"]
        self.sample_rate, self.downsample_rate = generator_params["sample_rate"], 1280
        self.nq, width = numbers["num_quantizers"], numbers["codebook_dim"]
        self.acoustic_encoder = nn.Conv1d(1, width, 1280, 1280)
        self.quantizer = nn.Module()
        self.quantizer.codebook_size = numbers["codebook_size"]
        self.quantizer.quantizers = nn.ModuleList(Layer(numbers["codebook_size"], width) for _ in range(self.nq))
        self.vocos = nn.ConvTranspose1d(width, 1, 1280, 1280)

    def encode(self, wav_list, overlap_seconds=10, device="cuda"):
        """Codes `(nq, floor(S / 1280))` of each of the waveforms `(S,)`."""
        codes_list = []
        for wav in wav_list:
            codes = torch.zeros(self.nq, len(wav) // 1280, dtype=torch.long, device=device)
            residual = self.acoustic_encoder(wav[None, None]).transpose(1, 2)
            for k, layer in enumerate(self.quantizer.quantizers):
                codes[k] = torch.cdist(residual, layer.codebook).argmin(-1)[0]
                residual = residual - layer.codebook[codes[k]]
            codes_list.append(codes)
        return {"codes_list": codes_list}

    def decode(self, codes_list, overlap_seconds=10, device="cuda"):
        """Waveforms `(T × 1280,)`; rows beyond those given would stay code 0, as in the original."""
        wavs = []
        for codes in codes_list:
            rows = torch.zeros(self.nq, codes.shape[-1], dtype=torch.long, device=device)
            rows[:] = codes
            layers = self.quantizer.quantizers[: len(rows)]
            summed = sum(layer.codebook[row] for layer, row in zip(layers, rows, strict=True))
            wavs.append(self.vocos(summed.T[None])[0, 0])
        return {"syn_wav_list": wavs}
