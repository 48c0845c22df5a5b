"""The unified audio encoder: log-mel → frame representations and one [CLS] vector (eq. 1–3)."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from codec.configuration import EntangleCodecConfig
from codec.linear import Linear
from codec.transformer import Block, RMSNorm, key_mask, rotary


class EncoderOutput(NamedTuple):
    """`hidden` `(B, T, D_enc)`: frames; `cls` `(B, D_enc)`: the clip."""

    hidden: Tensor
    cls: Tensor


class AudioEncoder(nn.Module):
    """Linear projection, a learned [CLS] in front, pre-norm Transformer with rotary positions, final norm.

    [CLS] sits at position 0 and frame i at i + 1. It stays in at inference: without it every frame would attend to other keys
    and get other codes.
    """

    def __init__(self, config: EntangleCodecConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.theta, self.head_width = config.rope_theta, width // config.num_attention_heads
        self.project = Linear(config.mel_spec.num_mel_bins, width)  # eq. 1
        self.cls = nn.Parameter(torch.empty(width))
        self.layers = nn.ModuleList(
            Block(width, config.num_attention_heads, config.intermediate_size, "gelu")
            for _ in range(config.num_hidden_layers)
        )
        self.norm = RMSNorm(width)

    def forward(self, input_features: Tensor, attention_mask: Tensor | None = None) -> EncoderOutput:
        """Encode normalised log-mel `(B, T, bins)`; `attention_mask` `(B, T)` is 1 at real frames, None when all are."""
        B, T, _ = input_features.shape
        frames = self.project(input_features)
        x = torch.cat([self.cls.expand(B, 1, -1), frames], dim=1)  # eq. 2: (B, T + 1, D)
        if attention_mask is not None:
            attention_mask = torch.cat([attention_mask.new_ones(B, 1), attention_mask], dim=1)
        tables = rotary(torch.arange(T + 1, device=x.device), self.head_width, self.theta)
        for layer in self.layers:
            x = layer(x, key_mask(attention_mask), tables)
        x = self.norm(x)  # eq. 3
        return EncoderOutput(hidden=x[:, 1:], cls=x[:, 0])
