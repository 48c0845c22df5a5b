"""The codec's linear layer: `torch.nn.Linear` that runs on a CPU at inference with a weight packed once for oneDNN."""

from typing import NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn


class _Packed(NamedTuple):
    """A packed weight, the parameter's memory that it was packed from (held, so that no other gets its address), and its version."""

    weight: Tensor
    source: Tensor
    version: int


_PACKED: "WeakKeyDictionary[nn.Module, _Packed]" = WeakKeyDictionary()
"""Beside the modules, not in them: packed weights can be neither copied nor saved."""


class Linear(nn.Linear):
    """Same parameters, same result to float32 rounding; on a CPU, in float32, 2.3 times as fast as MKL on an AMD processor (docs/log.md),
    for a second copy of the weight in memory.

    Only for weights that stand still: in evaluation mode, `requires_grad` off (as `EntangleCodec.from_pretrained` leaves them). A fused
    optimizer changes a weight without raising its version, so a packed copy of a trainable weight could be out of date unnoticed. The
    operator is the one that `torch.compile` puts in a frozen graph; where a build of torch lacks it, this is `nn.Linear`.
    """

    def forward(self, x: Tensor) -> Tensor:
        """`(…, in)` to `(…, out)`."""
        if self.training or torch.is_grad_enabled() or not _packable(x, self.weight):
            return super().forward(x)
        return torch.ops.mkldnn._linear_pointwise(x, self._packed(), self.bias, "none", [], "")

    def _packed(self) -> Tensor:
        weight, version, known = self.weight.detach(), self.weight._version, _PACKED.get(self)
        if known is None or known.version != version or known.source.data_ptr() != weight.data_ptr():
            packed = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous())
            known = _PACKED[self] = _Packed(packed, weight, version)
        return known.weight


def _packable(x: Tensor, weight: Tensor) -> bool:
    return (
        not weight.requires_grad
        and x.device.type == weight.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and x.numel() > 0
        and not weight.is_inference()  # its version is not counted
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
        and torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    )
