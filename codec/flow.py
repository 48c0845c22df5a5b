"""Rectified-flow mel decoder (eq. 7), its path (eq. 9) and its Euler sampler (eq. 12)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from codec.configuration import EntangleCodecConfig
from codec.linear import Linear
from codec.quantizer import masked_mean
from codec.transformer import AdaptiveRMSNorm, Block, ZeroLinear, key_mask, rotary


def flow_pair(x: Tensor, z: Tensor, t: Tensor, sigma_min: float) -> tuple[Tensor, Tensor]:
    """Point on the path and its velocity (eq. 9): `x_t = (1 − (1 − σ)t) z + t x` and `x − (1 − σ) z`.

    `x`, `z`: `(B, T, bins)`; `t`: `(B,)` in [0, 1], 0 is noise.
    """
    time = t[:, None, None]
    return (1 - (1 - sigma_min) * time) * z + time * x, x - (1 - sigma_min) * z


def linear_velocity(t: Tensor) -> Tensor:
    """Coefficient `a(t)` of the best linear guess `a x_t` of the velocity for independent data and noise of unit variance.

    `Cov(x − z, x_t) / Var(x_t) = (2t − 1) / (t² + (1 − t)²)`: −1 at t = 0, where the velocity is data minus the visible noise, and
    1 at t = 1. The network learns only the rest; without this skip it spends its first thousand steps, and 128 dimensions of its
    width, on copying the noise to its output (figures in docs/log.md).
    """
    return (2 * t - 1) / (t.square() + (1 - t).square())


class TimeEmbedding(nn.Module):
    """Diffusion time `(B,)` to `(B, D)`: sinusoids of 1000 t (without the factor t = 0 and t = 0.5 are nearly one vector), MLP."""

    def __init__(self, width: int, waves: int = 256) -> None:
        super().__init__()
        self.waves = waves
        self.mlp = nn.Sequential(Linear(waves, width), nn.SiLU(), Linear(width, width))

    def forward(self, t: Tensor) -> Tensor:
        """Embed `t` `(B,)` in [0, 1]."""
        half = self.waves // 2
        frequencies = 10_000 ** (-torch.arange(half, device=t.device, dtype=torch.float32) / half)
        angles = 1000.0 * t.float()[:, None] * frequencies
        return self.mlp(torch.cat([angles.sin(), angles.cos()], dim=-1))


class FlowDecoder(nn.Module):
    """Llama-style velocity predictor with the codes as a prefix (or added), bidirectional, time in every norm."""

    def __init__(self, config: EntangleCodecConfig) -> None:
        super().__init__()
        width, bins = config.decoder_hidden_size, config.mel_spec.num_mel_bins
        self.theta = config.rope_theta
        self.head_width = width // config.decoder_num_attention_heads
        self.project = Linear(bins, width)
        self.condition = nn.Sequential(Linear(config.codebook_dim, width), nn.SiLU(), Linear(width, width))
        # tells prefix from mel, which share their positions
        self.segment = nn.Parameter(torch.zeros(width)) if config.conditioning == "prefix" else None
        self.time = TimeEmbedding(width)
        self.layers = nn.ModuleList(
            Block(width, config.decoder_num_attention_heads, config.decoder_intermediate_size, "swiglu", adaptive=True)
            for _ in range(config.decoder_num_hidden_layers)
        )
        self.norm = AdaptiveRMSNorm(width)
        self.out = ZeroLinear(
            width, bins
        )  # the first velocity is the linear guess alone (F5-TTS starts at zero likewise)

    def forward(self, x_t: Tensor, t: Tensor, vectors: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Velocity `(B, T, bins)` at `x_t` `(B, T, bins)`, time `t` `(B,)`, codes' vectors `(B, T, D_quant)` (zeros: no condition)."""
        T = x_t.shape[1]
        # a unit vector times √D has entries of variance one, like the mel's
        x, condition = self.project(x_t), self.condition(vectors.to(x_t.dtype) * vectors.shape[-1] ** 0.5)
        positions = torch.arange(T, device=x.device)
        if self.segment is not None:
            x = torch.cat([condition + self.segment, x], dim=1)  # (B, 2T, D)
            positions = positions.repeat(2)  # code i and frame i share position i
            if attention_mask is not None:
                attention_mask = attention_mask.repeat(1, 2)
        else:
            x = x + condition
        tables, time = rotary(positions, self.head_width, self.theta), self.time(t).to(x.dtype)
        for layer in self.layers:
            x = layer(x, key_mask(attention_mask), tables, time)
        return self.out(self.norm(x[:, -T:], time)) + linear_velocity(t)[:, None, None].to(x_t.dtype) * x_t


def noise(frames: int, bins: int, seeds: Sequence[int], device: torch.device | str = "cpu") -> Tensor:
    """Starting noise `(B, T, bins)`, one seed per clip: a clip's noise depends neither on its batch nor on its padded length."""
    rows = [torch.randn(frames, bins, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    return torch.stack(rows).to(device)


def flow_loss(
    decoder: FlowDecoder,
    x: Tensor,
    vectors: Tensor,
    attention_mask: Tensor | None,
    config: EntangleCodecConfig,
    time_zero_share: float,
) -> Tensor:
    """Eq. 9 `()` of normalised log-mel `x` `(B, T, bins)` and codes' vectors `(B, T, D_quant)`, mean over real frames and bins.

    While `decoder` trains, times are uniform but for a `time_zero_share` at exactly 0, and `config.condition_dropout` of the clips lose
    their codes. In evaluation mode times and noise are fixed, so that losses differ by the model alone.
    """
    B = x.shape[0]
    if decoder.training:
        z, draws = torch.randn_like(x), torch.rand(3, B, device=x.device)
        t = draws[0] * (draws[1] >= time_zero_share)
        # per clip: one draw for the batch would make whole steps unconditional
        vectors = vectors * (draws[2] >= config.condition_dropout)[:, None, None]
    else:
        z = noise(x.shape[1], x.shape[2], range(B), x.device)
        t = torch.linspace(0, 1, B + 1, device=x.device)[:-1]
    x_t, velocity = flow_pair(x, z, t, config.sigma_min)
    return masked_mean(l1_per_frame(decoder(x_t, t, vectors, attention_mask), velocity), attention_mask)


def sample(
    decoder: FlowDecoder,
    vectors: Tensor,
    z: Tensor,
    attention_mask: Tensor | None = None,
    num_steps: int = 1,
    guidance_scale: float = 0.0,
) -> Tensor:
    """Mel `(B, T, bins)` by Euler steps from noise `z`, the velocity taken at the left edge of each step.

    Guidance follows eq. 12, `(1 + γ) v(condition) − γ v(none)`; γ = 0 is off and costs one pass a step, γ > 0 costs two.
    Taking t at the middle of a step, as one public relative does, feeds pure noise at t = 0.5 when there is one step.
    """
    if num_steps < 1 or guidance_scale < 0:
        raise ValueError(
            f"num_steps must be at least 1 and guidance_scale at least 0, got {num_steps} and {guidance_scale}"
        )
    x, B = z, z.shape[0]
    for step in range(num_steps):
        t = torch.full((B,), step / num_steps, device=z.device)
        if guidance_scale > 0:
            mask = None if attention_mask is None else attention_mask.repeat(2, 1)
            both = decoder(x.repeat(2, 1, 1), t.repeat(2), torch.cat([vectors, torch.zeros_like(vectors)]), mask)
            velocity = (1 + guidance_scale) * both[:B] - guidance_scale * both[B:]
        else:
            velocity = decoder(x, t, vectors, attention_mask)
        x = x + velocity.float() / num_steps
    return x


def l1_per_frame(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean absolute error over the mel bins: `(B, T, bins)` twice to `(B, T)` (eq. 9's norm, per bin)."""
    return F.l1_loss(prediction.float(), target, reduction="none").mean(-1)
