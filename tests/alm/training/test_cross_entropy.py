"""The cross-entropy that overwrites its logits equals PyTorch's, in value, gradient and first choices."""

import pytest
import torch
import torch.nn.functional as F

from alm.training import cross_entropy
from alm.training.cross_entropy import cross_entropy_in_place


@pytest.mark.parametrize("at_a_time", [1, 40, 10_000])
@pytest.mark.parametrize("outer", [1.0, 3.0])
def test_equals_pytorchs(monkeypatch: pytest.MonkeyPatch, at_a_time: int, outer: float) -> None:
    monkeypatch.setattr(cross_entropy, "_ELEMENTS", at_a_time)
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(7, 5, generator=generator, requires_grad=True)
    head = torch.randn(13, 5, generator=generator, requires_grad=True)
    targets = torch.randint(13, (7,), generator=generator)
    logits = 30 * hidden @ head.T
    right = (logits.argmax(-1) == targets).sum()
    plain = F.cross_entropy(logits, targets, reduction="sum") / 4
    expected = torch.autograd.grad(outer * plain, (hidden, head))

    loss, correct = cross_entropy_in_place(30 * hidden @ head.T, targets, 4)
    torch.testing.assert_close(loss, plain)
    assert correct == right and not correct.requires_grad
    for ours, theirs in zip(torch.autograd.grad(outer * loss, (hidden, head)), expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def test_nothing_labelled_is_zero() -> None:
    hidden = torch.randn(0, 5, requires_grad=True)
    loss, correct = cross_entropy_in_place(hidden * 2, torch.zeros(0, dtype=torch.long), 1)
    loss.backward()
    assert loss == 0 and correct == 0 and hidden.grad is not None


def test_logits_far_apart_stay_finite() -> None:
    logits = torch.tensor([[1e4, -1e4, 0.0]], requires_grad=True)
    loss, _ = cross_entropy_in_place(logits * 1, torch.tensor([1]), 1)
    loss.backward()
    assert loss == 2e4 and torch.equal(logits.grad, torch.tensor([[1.0, -1.0, 0.0]]))
