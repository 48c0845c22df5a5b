"""Cross-entropy over a large vocabulary on a CPU, in the memory of the logits."""

from typing import Any, NamedTuple

import torch
from torch.autograd.function import once_differentiable

_ELEMENTS = 2**21  # of logits at a time: 8 MB, which a core's cache holds over the passes that a softmax takes


class CrossEntropy(NamedTuple):
    """The loss, and how many targets were the model's first choice; both without a dimension."""

    loss: torch.Tensor
    correct: torch.Tensor


def cross_entropy_in_place(logits: torch.Tensor, targets: torch.Tensor, count: float) -> CrossEntropy:
    """Cross-entropy of `targets` `(N,)`, summed and divided by `count`, from float32 `logits` `(N, V)`, **which it overwrites**.

    The gradient of the logits is known as soon as the loss is, and takes their place; PyTorch's own keeps their logarithmic softmax for
    the way back and makes the gradient beside it. Same values; no second derivative.
    """
    return CrossEntropy(*_InPlace.apply(logits, targets, count))


class _InPlace(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, logits: torch.Tensor, targets: torch.Tensor, count: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        loss, correct = logits.new_zeros(()), logits.new_zeros(())
        height = max(1, _ELEMENTS // logits.shape[1])
        for rows, target in zip(logits.split(height), targets[:, None].split(height), strict=True):
            top, first = rows.max(-1, keepdim=True)
            correct += (first == target).sum()
            wanted = rows.gather(1, target) - top
            total = rows.sub_(top).exp_().sum(-1, keepdim=True)
            loss += (total.log() - wanted).sum()
            rows.div_(total * count).scatter_add_(1, target, rows.new_full(target.shape, -1 / count))
        ctx.save_for_backward(logits)
        ctx.mark_non_differentiable(correct)
        return loss / count, correct

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor, _: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (made,) = ctx.saved_tensors
        return made if gradient == 1 else made * gradient, None, None
