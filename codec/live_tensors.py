"""Bytes of the tensors alive at the worst moment of a training step: of a real one, or of one that is only gone through in shapes."""

import weakref
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only


class StepBytes(NamedTuple):
    """Bytes on one device; `activations` is what the peak has beside the three others."""

    weights: float
    gradients: float
    optimizer: float
    activations: float

    @property
    def total(self) -> float:
        """The peak."""
        return sum(self)

    def __str__(self) -> str:
        parts = ", ".join(f"{name} {value / 2**30:.2f}" for name, value in self._asdict().items())
        return f"{self.total / 2**30:.2f} GiB ({parts})"


class _Alive(TorchDispatchMode):
    """Counts storages when an operation returns one first, until they go; views are no memory."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: dict[int, int] = {}
        self.alive = self.peak = 0

    def see(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key not in self.sizes:
            self.sizes[key] = storage.nbytes()
            weakref.finalize(storage, self._gone, key)
            self.alive += self.sizes[key]
            self.peak = max(self.peak, self.alive)

    def _gone(self, key: int) -> None:
        self.alive -= self.sizes.pop(key)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        tree_map_only(Tensor, self.see, out)
        return out


def peak_bytes(action: Callable[[], None], kept: Iterable[Tensor]) -> int:
    """Most bytes of tensors alive at a time during `action`, the tensors `kept` from before included.

    What an operation takes inside itself, and the allocator, is not seen.
    """
    counter = _Alive()
    for tensor in kept:
        counter.see(tensor)
    with counter:
        action()
    return counter.peak


class Turn(NamedTuple):
    """One model's part of a training step: `loss()` computes what it learns from. `half`: under autocast to bfloat16."""

    model: nn.Module
    loss: Callable[[], Tensor]
    half: bool


def step_bytes(*turns: Turn, beside: Iterable[Tensor] = ()) -> StepBytes:
    """Bytes of a step in which each turn's model takes one of AdamW, in their order, with gradients of an earlier batch in place.

    `beside`: tensors that lie on the device too, such as frozen models and the batch. The models may be those of `in_shapes`; else their
    first step is really taken.
    """
    trained = [[parameter for parameter in turn.model.parameters() if parameter.requires_grad] for turn in turns]
    optimizers = [torch.optim.AdamW(parameters) for parameters in trained]

    def step() -> None:
        for turn, optimizer in zip(turns, optimizers, strict=True):
            with torch.autocast("cpu", torch.bfloat16, enabled=turn.half):
                value = turn.loss()
            value.backward()
            optimizer.step()

    step()
    gradients = [p.grad for parameters in trained for p in parameters if p.grad is not None]
    states = [state for optimizer in optimizers for state in optimizer.state.values()]
    moments = [value for state in states for value in state.values() if isinstance(value, Tensor)]
    still = [tensor for turn in turns for tensor in (*turn.model.parameters(), *turn.model.buffers())]
    still += beside
    peak = peak_bytes(step, [*still, *gradients, *moments])
    weights, grads, optimizer = (float(_size(tensors)) for tensors in (still, gradients, moments))
    return StepBytes(weights, grads, optimizer, peak - weights - grads - optimizer)


def in_shapes() -> FakeTensorMode:
    """Within it, models and batches have shapes and types but no memory; they can be used after it, too."""
    return FakeTensorMode(allow_non_fake_inputs=True)


def _size(tensors: Iterable[Tensor]) -> int:
    return sum({t.untyped_storage()._cdata: t.untyped_storage().nbytes() for t in tensors}.values())
