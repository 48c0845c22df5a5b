"""Single-codebook cosine vector quantizer: two-layer MLP, L2 norm (eq. 6), nearest unit row, losses of eq. 11."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from codec.configuration import EntangleCodecConfig
from codec.linear import Linear

SEARCH_BLOCK = 4096  # frames per search: ten minutes against 16,384 rows at once would take 2 GB of scores


class Quantized(NamedTuple):
    """`vectors` `(B, T, D)`: unit rows with straight-through gradient; `codes` `(B, T)`; `latents` `(B, T, D)`: unit, unquantised."""

    vectors: Tensor
    codes: Tensor
    latents: Tensor
    loss: Tensor


class CosineQuantizer(nn.Module):
    """Learned codebook searched by cosine; both sides live on the unit sphere, so `quantize(row i)` is `i`.

    All of it runs in float32: a bf16 search alone changed 2 % of the codes. Ties go to the lowest code.
    """

    def __init__(self, config: EntangleCodecConfig) -> None:
        super().__init__()
        self.commitment = config.commitment
        self.project = nn.Sequential(  # MLP_VQ of eq. 6
            Linear(config.hidden_size, config.hidden_size),
            nn.GELU(),
            Linear(config.hidden_size, config.codebook_dim),
        )
        # no scale of its own: with its running statistics it is an affine map, so at inference eq. 6 stays a two-layer MLP
        self.standardise = nn.BatchNorm1d(config.codebook_dim, affine=False) if config.standardise_latents else None
        self.codebook = nn.Parameter(torch.empty(config.codebook_size, config.codebook_dim))

    def unit_codebook(self) -> Tensor:
        """Codebook rows on the unit sphere `(K, D)`, float32."""
        return F.normalize(self.codebook.float(), dim=-1, eps=1e-6)

    def latents(self, hidden: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Encoder frames `(B, T, D_enc)` to unit latents `(B, T, D_quant)` float32 (eq. 6).

        While training, the latents of real frames are standardised over the batch: without it they drift into one direction and
        take the codebook with them.
        """
        with torch.autocast(hidden.device.type, enabled=False):
            h: Tensor = self.project(hidden.float())
            if self.standardise is not None:
                real = torch.ones_like(h[..., 0], dtype=torch.bool) if attention_mask is None else attention_mask.bool()
                h = h.masked_scatter(real[..., None], self.standardise(h[real]))
            return F.normalize(h, dim=-1, eps=1e-6)

    @torch.no_grad()
    def search(self, latents: Tensor) -> Tensor:
        """Codes `(…,)` of unit latents `(…, D)`: the row of largest cosine."""
        rows = self.unit_codebook().T
        flat = latents.reshape(-1, latents.shape[-1])
        codes = [(block @ rows).argmax(dim=-1) for block in flat.split(SEARCH_BLOCK)]
        return torch.cat(codes).reshape(latents.shape[:-1]) if codes else flat.new_zeros(0, dtype=torch.long)

    def lookup(self, codes: Tensor) -> Tensor:
        """Unit rows `(…, D)` of codes `(…,)`. Raises `ValueError` on a code outside the codebook."""
        size = self.codebook.shape[0]
        if codes.numel() and (int(codes.min()) < 0 or int(codes.max()) >= size):
            raise ValueError(f"codes must be in [0, {size}), got {int(codes.min())}…{int(codes.max())}")
        return F.embedding(codes, self.unit_codebook())

    def forward(self, hidden: Tensor, attention_mask: Tensor | None = None) -> Quantized:
        """Quantise encoder frames `(B, T, D_enc)`; the loss (eq. 11) is the mean over frames of `attention_mask` `(B, T)`."""
        latents = self.latents(hidden, attention_mask)
        codes = self.search(latents)
        rows = F.embedding(codes, self.unit_codebook())
        # eq. 11, before the straight-through line: after it the codebook term would have no gradient
        codebook_term = (rows - latents.detach()).square().sum(-1)
        commitment_term = (latents - rows.detach()).square().sum(-1)
        per_frame = codebook_term + self.commitment * commitment_term
        loss = masked_mean(per_frame, attention_mask)
        return Quantized(vectors=latents + (rows - latents).detach(), codes=codes, latents=latents, loss=loss)


def masked_mean(values: Tensor, attention_mask: Tensor | None) -> Tensor:
    """Mean of per-frame values `(B, T)` over the frames that `attention_mask` `(B, T)` marks with 1."""
    if attention_mask is None:
        return values.mean()
    weights = attention_mask.to(values.dtype)
    return (values * weights).sum() / weights.sum().clamp_min(1.0)
