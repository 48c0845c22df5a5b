"""Drawing the next id: greedy, or sampled so that a row's draws depend on its seed and nothing else."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)


@dataclass(frozen=True)
class Sampling:
    """How ids are drawn. `temperature` 0 is greedy; `top_k` 0, `top_p` 1 and `min_p` 0 leave everything in.

    Raises `ValueError` on what is out of range; temperatures that are nearly 0 would take scores beyond float32.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0

    def __post_init__(self) -> None:
        drawable = self.temperature == 0 or 1e-5 <= self.temperature < math.inf
        if not drawable or self.top_k < 0 or not 0 < self.top_p <= 1 or not 0 <= self.min_p <= 1:
            raise ValueError(
                "temperature is 0 (greedy) or at least 1e-5, top_k is 0 or more, top_p in (0, 1], min_p in [0, 1]; got "
                f"{self}"
            )

    def warpers(self) -> LogitsProcessorList:
        """Transformers' own, in the order in which `generate` applies them."""
        chosen = LogitsProcessorList()
        if self.temperature not in (0.0, 1.0):
            chosen.append(TemperatureLogitsWarper(float(self.temperature)))
        if self.top_k:
            chosen.append(TopKLogitsWarper(self.top_k))
        if self.top_p < 1:
            chosen.append(TopPLogitsWarper(self.top_p))
        if self.min_p:
            chosen.append(MinPLogitsWarper(self.min_p))
        return chosen


GREEDY = Sampling(temperature=0.0)


class Sampler:
    """Draws the ids of `B` rows, each from a generator of its own: the same alone, in any batch, over any slice of the vocabulary."""

    def __init__(self, sampling: Sampling, seeds: Sequence[int]) -> None:
        self.greedy, self.warpers = sampling.temperature == 0, sampling.warpers()
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def __call__(self, scores: Tensor) -> Tensor:
        """Columns `(B,)` drawn from scores `(B, n)`, minus infinity where nothing may be drawn."""
        if self.greedy:
            return scores.argmax(-1)
        device = scores.device
        scores = self.warpers(None, scores.float()).to(_with_float64(device))
        # by inverse distribution function, since torch.multinomial's draws depend on the number of columns
        mass = scores.double().softmax(-1).cumsum(-1)
        draws = torch.stack([torch.rand(1, generator=one, dtype=torch.float64) for one in self.generators])
        columns = torch.searchsorted(mass, draws.to(mass.device) * mass[:, -1:], right=True)[:, 0]
        last = (scores > -torch.inf).long().cumsum(-1).argmax(-1)  # rounding may lead past the last that may be drawn
        return torch.minimum(columns, last).to(device)


def _with_float64(device: torch.device) -> torch.device:
    """Where the draws of a device's scores are computed: Apple's GPUs have no float64."""
    return torch.device("cpu") if device.type == "mps" else device
