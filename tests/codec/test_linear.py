"""The packed linear layer is `torch.nn.Linear`: same results, follows every change of the weight, and stays out of copies and files."""

import copy
import io

import pytest
import torch

from codec.linear import _PACKED, Linear


def still(*sizes: int, bias: bool = True) -> Linear:
    """A layer as a loaded codec has them."""
    return Linear(*sizes, bias=bias).eval().requires_grad_(False)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("shape", [(7, 24), (1, 3, 24), (2, 501, 24), (0, 24)])
def test_equals_the_plain_layer(shape: tuple[int, ...], bias: bool) -> None:
    layer, x = still(24, 40, bias=bias), torch.randn(shape)
    with torch.no_grad():
        torch.testing.assert_close(layer(x), torch.nn.functional.linear(x, layer.weight, layer.bias))
    assert (layer in _PACKED) == (x.numel() > 0)
    layer(x.requires_grad_()).sum().backward()
    assert x.grad is not None and x.grad.shape == shape


@pytest.mark.parametrize("fused", [True, False])
def test_a_weight_that_may_be_trained_is_never_packed(fused: bool) -> None:
    """A fused optimizer changes weights without raising their version: the case that a packed copy cannot notice."""
    layer, x = Linear(8, 8).eval(), torch.randn(3, 8)
    optimizer = torch.optim.AdamW(layer.parameters(), 0.1, fused=fused)
    for _ in range(3):
        layer(x).sum().backward()
        optimizer.step()
        with torch.no_grad():
            torch.testing.assert_close(layer(x), torch.nn.functional.linear(x, layer.weight, layer.bias))
    assert layer not in _PACKED and Linear(8, 8).requires_grad_(False)(x).shape == (3, 8)


def test_a_row_does_not_depend_on_its_batch() -> None:
    layer, x = still(768, 256), torch.randn(501, 768)
    with torch.inference_mode():
        whole = layer(x)
        for part in (slice(0, 1), slice(3, 50), slice(100, 401)):
            torch.testing.assert_close(layer(x[part]), whole[part], rtol=0, atol=1e-6)


@torch.no_grad()
def test_every_change_of_the_weight_is_followed() -> None:
    layer, x = still(16, 16, bias=False), torch.eye(16)
    for change in (
        lambda: None,
        lambda: layer.weight.add_(1),
        lambda: layer.load_state_dict({"weight": torch.randn(16, 16)}),
        lambda: layer.load_state_dict({"weight": torch.randn(16, 16)}, assign=True),
        lambda: setattr(layer, "weight", torch.nn.Parameter(torch.randn(16, 16), False)),
        lambda: setattr(layer.weight, "data", torch.randn(16, 16)),
        lambda: layer.to(torch.bfloat16).to(torch.float32),
    ):
        change()
        torch.testing.assert_close(layer(x), layer.weight.T)
    torch.testing.assert_close(layer.to(torch.bfloat16)(x.bfloat16()), layer.weight.T)


@torch.no_grad()
def test_it_can_be_copied_saved_and_forgotten() -> None:
    layer, x = still(8, 8), torch.randn(3, 8)
    expected = layer(x)
    twin = copy.deepcopy(layer)
    torch.testing.assert_close(twin(x), expected)
    file = io.BytesIO()
    torch.save(layer, file)
    file.seek(0)
    torch.testing.assert_close(torch.load(file, weights_only=False)(x), expected)
    count = len(_PACKED)
    del twin
    assert len(_PACKED) == count - 1
    with torch.inference_mode():
        frozen = still(8, 8)  # its weight counts no versions
        torch.testing.assert_close(frozen(x), torch.nn.functional.linear(x, frozen.weight, frozen.bias))
