"""Care of the codebook: start it on clusters of mel frames, restart dead codes, measure use.

Joint training from scratch collapses without it: an untrained encoder's normalised outputs nearly all point one way, so a handful
of codes takes everything (figures in docs/log.md).
"""

from collections.abc import Iterable
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from codec.modeling import EntangleCodecForPreTraining
from codec.quantizer import CosineQuantizer


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
def start_codebook(
    model: EntangleCodecForPreTraining,
    batches: Iterable[dict[str, Tensor]],
    frames_per_code: int = 32,
    power: float = 0.5,
    rounds: int = 10,
) -> None:
    """Start MLP_VQ as a projection on the frames' principal components and the codebook as their spherical k-means.

    The untrained encoder's blocks are the identity, so the first codes are clusters of single mel frames. MLP_VQ is exactly linear
    at first, through `gelu(x) − gelu(−x) = x`; component i gets the standard deviation `λ_i^(power / 2)`, and a random rotation
    spreads the strong ones over all dimensions, since standardising evens the dimensions out.

    Args:
        model: freshly initialised.
        batches: of `CaptionCollator`, read until there are `frames_per_code` frames a code.
        frames_per_code: 10 and more let k-means do more than copy frames.
        power: 1 keeps the components' own weight, 0 whitens.
        rounds: of k-means.

    Raises `ValueError` where MLP_VQ is too narrow or no frame came.
    """
    quantizer = model.codec.quantizer
    first, last = cast(nn.Linear, quantizer.project[0]), cast(nn.Linear, quantizer.project[-1])
    size, dim = quantizer.codebook.shape
    if 2 * dim > first.out_features:
        raise ValueError(f"hidden_size {first.out_features} must be at least twice codebook_dim {dim}")
    frames = _frames(model, batches, frames_per_code * size)
    mean = frames.mean(0)
    centred = (frames - mean).double()
    values, vectors = torch.linalg.eigh(centred.T @ centred / len(centred))
    scale = values[-dim:].clamp_min(values[-1] * 1e-6) ** ((power - 1) / 2)
    rotation = torch.linalg.qr(torch.randn(dim, dim, dtype=torch.double, device=frames.device)).Q
    basis = (rotation @ (vectors[:, -dim:] * scale).T).to(frames.dtype)  # (dim, D_enc)
    first.weight[: 2 * dim] = torch.cat([basis, -basis])
    first.bias[: 2 * dim] = torch.cat([-basis @ mean, basis @ mean])
    identity = torch.eye(dim, device=frames.device)
    last.weight.zero_()
    last.weight[:, : 2 * dim] = torch.cat([identity, -identity], dim=1)
    last.bias.zero_()
    if quantizer.standardise is not None:
        projected = quantizer.project(frames)
        cast(Tensor, quantizer.standardise.running_mean).copy_(projected.mean(0))
        cast(Tensor, quantizer.standardise.running_var).copy_(projected.var(0))
    quantizer.eval()  # the running statistics just set
    _k_means(quantizer, quantizer.latents(frames[None])[0], rounds)
    quantizer.train()
    model.code_hits.fill_(1.0)  # no row is dead before it had its chance


def _frames(model: EntangleCodecForPreTraining, batches: Iterable[dict[str, Tensor]], wanted: int) -> Tensor:
    """Encoder outputs `(≤ wanted, D_enc)` of the batches' real frames."""
    rows: list[Tensor] = []
    for batch in batches:
        mask = batch.get("attention_mask")
        hidden = model.codec.encoder(batch["input_features"], mask).hidden
        rows.append(hidden.flatten(0, 1) if mask is None else hidden[mask.bool()])
        wanted -= len(rows[-1])
        if wanted <= 0:
            break
    if sum(map(len, rows)) < 2:
        raise ValueError("no frames to start the codebook from")
    return torch.cat(rows)


def _k_means(quantizer: CosineQuantizer, latents: Tensor, rounds: int) -> None:
    """Codebook rows onto the spherical k-means of unit `latents` `(N, D)`; a row without members moves onto a random latent."""
    codebook = quantizer.codebook
    some = torch.randperm(len(latents), device=latents.device)[: len(codebook)]
    codebook[: len(some)] = latents[some]
    for _ in range(rounds):
        codes = quantizer.search(latents)
        sums = torch.zeros_like(codebook).index_add_(0, codes, latents)
        empty = torch.bincount(codes, minlength=len(codebook)) == 0
        sums[empty] = latents[torch.randint(len(latents), (int(empty.sum()),), device=latents.device)]
        codebook.copy_(F.normalize(sums, dim=-1))


@torch.no_grad()
def count_hits(hits: Tensor, codes: Tensor, attention_mask: Tensor | None, decay: float = 0.99) -> None:
    """Update the running hits `(K,)` in place with codes `(B, T)` of real frames, summed over all ranks; their mean is 1."""
    real = codes.reshape(-1) if attention_mask is None else codes[attention_mask.bool()]
    counts = torch.bincount(real, minlength=len(hits)).to(hits.dtype)
    if torch.distributed.is_initialized():
        torch.distributed.all_reduce(counts)
    rate = counts * (len(hits) / counts.sum().clamp_min(1))
    hits.mul_(decay).add_(rate, alpha=1 - decay)


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
