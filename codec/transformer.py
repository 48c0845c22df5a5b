"""The one Transformer block of the codec: encoder, caption tower and flow decoder are built from it."""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from codec.linear import Linear


def rotary(positions: Tensor, head_width: int, theta: float) -> tuple[Tensor, Tensor]:
    """Cosine and sine tables `(T, head_width)` of rotary positions `(T,)` (Su et al., 2021), computed, never stored.

    A stored table would come back as garbage from `from_pretrained`, which leaves non-persistent buffers uninitialised.
    """
    frequencies = theta ** (-torch.arange(0, head_width, 2, device=positions.device, dtype=torch.float32) / head_width)
    angles = positions.float()[:, None] * frequencies
    angles = torch.cat([angles, angles], dim=-1)
    return angles.cos(), angles.sin()


def _rotate(x: Tensor, tables: tuple[Tensor, Tensor]) -> Tensor:
    """Rotate queries or keys `(B, heads, T, head_width)`."""
    cos, sin = (table.to(x.dtype) for table in tables)
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-second, first], dim=-1) * sin


class ZeroLinear(Linear):
    """Linear layer that starts at zero, so that its branch is silent at first (`_init_weights` sees leaf modules only)."""


class Attention(nn.Module):
    """Multi-head self-attention through `scaled_dot_product_attention` (memory linear in T)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = Linear(width, 3 * width, bias=False)
        self.out = ZeroLinear(width, width, bias=False)

    def forward(
        self, x: Tensor, mask: Tensor | None, tables: tuple[Tensor, Tensor] | None, causal: bool = False
    ) -> Tensor:
        """Attend over `x` `(B, T, D)`; `mask` `(B, 1, 1, T)` is true at keys that may be seen."""
        B, T, D = x.shape
        q, k, v = self.qkv(x).view(B, T, 3, self.heads, D // self.heads).permute(2, 0, 3, 1, 4)
        if tables is not None:
            q, k = _rotate(q, tables), _rotate(k, tables)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal)
        return self.out(y.transpose(1, 2).reshape(B, T, D))


class FeedForward(nn.Module):
    """`gelu`: two linear layers; `swiglu`: Llama's gated form with one more."""

    def __init__(self, width: int, inner: int, activation: Literal["gelu", "swiglu"]) -> None:
        super().__init__()
        self.gated = activation == "swiglu"
        self.up = Linear(width, 2 * inner if self.gated else inner, bias=False)
        self.down = ZeroLinear(inner, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, T, D)` to `(B, T, D)`."""
        hidden = self.up(x)
        if self.gated:
            gate, value = hidden.chunk(2, dim=-1)
            return self.down(F.silu(gate) * value)
        return self.down(F.gelu(hidden))


class AdaptiveRMSNorm(nn.Module):
    """RMSNorm whose scale is predicted from a condition (the diffusion time); it starts as a plain RMSNorm."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = ZeroLinear(width, width)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Normalise `x` `(B, T, D)` and scale by `1 + scale(condition)`, condition `(B, D)`."""
        return F.rms_norm(x, x.shape[-1:], eps=1e-6) * (1 + self.scale(condition))[:, None]


class Block(nn.Module):
    """Pre-norm Transformer block that starts as the identity; `adaptive` blocks take the time condition in both norms."""

    def __init__(
        self, width: int, heads: int, inner: int, activation: Literal["gelu", "swiglu"], adaptive: bool = False
    ) -> None:
        super().__init__()
        norm = AdaptiveRMSNorm if adaptive else RMSNorm
        self.attention_norm, self.feed_forward_norm = norm(width), norm(width)
        self.attention = Attention(width, heads)
        self.feed_forward = FeedForward(width, inner, activation)

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        tables: tuple[Tensor, Tensor] | None = None,
        condition: Tensor | None = None,
        causal: bool = False,
    ) -> Tensor:
        """`(B, T, D)` to `(B, T, D)`; see `Attention` for `mask` and `tables`, `AdaptiveRMSNorm` for `condition`."""
        x = x + self.attention(self.attention_norm(x, condition), mask, tables, causal)
        return x + self.feed_forward(self.feed_forward_norm(x, condition))


class RMSNorm(nn.Module):
    """RMSNorm with a learned scale; takes and ignores a condition, so that blocks read alike."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """`(…, D)` to `(…, D)`."""
        return F.rms_norm(x, x.shape[-1:], self.weight, eps=1e-6)


def key_mask(attention_mask: Tensor | None) -> Tensor | None:
    """Mask `(B, T)` of valid frames (1 valid, 0 padding) as `(B, 1, 1, T)` bool, or None where nothing is padded."""
    return None if attention_mask is None else attention_mask.bool()[:, None, None, :]
