"""Care of the codebook during training: spread the latents before the first step, restart dead codes, measure use.

Joint training from scratch collapses without it: an untrained encoder's normalised outputs nearly all point one way, so a handful
of codes takes everything (figures in docs/log.md).
"""

from collections.abc import Iterable
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from codec.modeling import EntangleCodecForPreTraining


class CodebookUse(NamedTuple):
    """`used`: share of the codes that occur, in [0, 1]; `perplexity`: exp of the entropy, in [1, codebook_size]; `n`: codes counted."""

    used: float
    perplexity: float
    n: int


def codebook_use(codes: Tensor, codebook_size: int) -> CodebookUse:
    """Use of the codebook by `codes` of any shape. Both figures grow with `n`: compare them at equal `n` only."""
    counts = torch.bincount(codes.reshape(-1), minlength=codebook_size).double()
    return CodebookUse(float((counts > 0).double().mean()), perplexity(counts), int(counts.sum()))


def perplexity(counts: Tensor) -> float:
    """exp of the entropy of counts `(K,)`: the number of equally used codes that would give it."""
    share = counts[counts > 0] / counts.sum()
    return float((-(share * share.log()).sum()).exp())


@torch.no_grad()
def spread_latents(model: EntangleCodecForPreTraining, batches: Iterable[dict[str, Tensor]]) -> None:
    """Whiten the last layer of MLP_VQ on a few batches, so that the first latents cover the sphere instead of one direction.

    Only the layer's weight and bias change: `h ← C^(-1/2) (h − mean h)`, with C the covariance of h over real frames.
    """
    outputs = []
    for batch in batches:
        mask = batch.get("attention_mask")
        hidden = model.codec.encoder(batch["input_features"], mask).hidden
        h = model.codec.quantizer.project(hidden)
        outputs.append(h.reshape(-1, h.shape[-1]) if mask is None else h[mask.bool()])
    h = torch.cat(outputs).double()
    mean, centred = h.mean(0), h - h.mean(0)
    values, vectors = torch.linalg.eigh(centred.T @ centred / len(centred))
    whiten = vectors @ torch.diag(values.clamp_min(values.max() * 1e-6).rsqrt()) @ vectors.T
    layer = cast(nn.Linear, model.codec.quantizer.project[-1])
    bias = whiten @ (layer.bias.double() - mean)
    layer.weight.copy_(whiten @ layer.weight.double())
    layer.bias.copy_(bias)


@torch.no_grad()
def count_hits(hits: Tensor, codes: Tensor, attention_mask: Tensor | None, decay: float = 0.99) -> None:
    """Update the running hits `(K,)` in place with codes `(B, T)` of real frames, summed over all ranks."""
    real = codes.reshape(-1) if attention_mask is None else codes[attention_mask.bool()]
    counts = torch.bincount(real, minlength=len(hits)).to(hits.dtype)
    if torch.distributed.is_initialized():
        torch.distributed.all_reduce(counts)
    hits.mul_(decay).add_(counts, alpha=1 - decay)


@torch.no_grad()
def restart_dead_codes(
    codebook: nn.Parameter,
    hits: Tensor,
    latents: Tensor,
    optimizer: torch.optim.Optimizer | None = None,
    threshold: float = 0.1,
) -> int:
    """Move codes used under `threshold` of the expected rate onto latents `(N, D)` of the current batch; returns how many.

    Relative to the mean rate, so that it means the same for any batch and codebook size. Moved rows lose their gradient and
    Adam moments and count as used at the mean rate. All ranks take rank 0's rows.
    """
    dead = (hits <= threshold * hits.mean()).nonzero()[:, 0]
    picked = torch.randperm(len(latents), device=latents.device)[: len(dead)]
    rows = latents[picked].to(codebook.dtype).contiguous()
    if torch.distributed.is_initialized():
        count = torch.tensor([len(rows)], device=rows.device)
        torch.distributed.broadcast(count, 0)  # ranks can hold different numbers of latents
        if len(rows) != int(count):
            rows = rows.new_zeros(int(count), rows.shape[1])
        torch.distributed.broadcast(rows, 0)
    dead = dead[: len(rows)]
    codebook[dead] = rows
    hits[dead] = hits.mean()
    if codebook.grad is not None:
        codebook.grad[dead] = 0
    state: dict[str, Any] = optimizer.state.get(codebook, {}) if optimizer is not None else {}
    for name in ("exp_avg", "exp_avg_sq"):
        if name in state:
            state[name][dead] = 0
    return len(dead)
