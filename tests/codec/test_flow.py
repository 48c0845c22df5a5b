from collections.abc import Callable
from typing import Literal

import pytest
import torch
from torch import Tensor

from codec import EntangleCodecConfig
from codec.flow import FlowDecoder, flow_pair, linear_velocity, noise, sample

Make = Callable[..., EntangleCodecConfig]
CONDITIONINGS = pytest.mark.parametrize("conditioning", ["prefix", "add"])


def decoder_of(make_config: Make, conditioning: Literal["prefix", "add"]) -> FlowDecoder:
    torch.manual_seed(0)
    return FlowDecoder(make_config(conditioning=conditioning)).eval()


class Spy(torch.nn.Module):
    """Records its calls; its velocity is the condition's first value."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[list[float], int]] = []

    def forward(self, x: Tensor, t: Tensor, vectors: Tensor, mask: Tensor | None = None) -> Tensor:
        self.calls.append((t.tolist(), len(x)))
        return vectors[..., :1].expand_as(x)


def test_path_ends_and_velocity() -> None:
    x, z, sigma = torch.randn(2, 3, 4), torch.randn(2, 3, 4), 1e-2
    start, velocity = flow_pair(x, z, torch.zeros(2), sigma)
    end, _ = flow_pair(x, z, torch.ones(2), sigma)
    torch.testing.assert_close(start, z)
    torch.testing.assert_close(end, x + sigma * z)
    torch.testing.assert_close(end - start, velocity)  # straight: its velocity is constant


def test_linear_velocity_is_the_least_squares_slope() -> None:
    generator = torch.Generator().manual_seed(0)
    x, z = torch.randn(2, 400_000, generator=generator)
    for t in (0.0, 0.3, 0.5, 0.9, 1.0):
        x_t, v = (1 - t) * z + t * x, x - z
        slope = float((x_t * v).mean() / x_t.square().mean())
        assert float(linear_velocity(torch.tensor(t))) == pytest.approx(slope, abs=0.01)


def test_one_step_calls_the_network_once_at_time_zero() -> None:
    spy = Spy()
    sample(spy, torch.ones(2, 5, 3), torch.zeros(2, 5, 4))  # type: ignore[arg-type]
    assert spy.calls == [([0.0, 0.0], 2)]


def test_steps_take_the_left_edge_and_guidance_follows_eq_12() -> None:
    spy = Spy()
    out = sample(spy, torch.ones(2, 5, 3), torch.zeros(2, 5, 4), num_steps=2, guidance_scale=0.5)  # type: ignore[arg-type]
    assert [times[0] for times, _ in spy.calls] == [0.0, 0.5]
    assert [size for _, size in spy.calls] == [4, 4]
    torch.testing.assert_close(out, torch.full_like(out, 1.5))  # (1 + γ) · 1 − γ · 0


@pytest.mark.parametrize(("steps", "scale"), [(0, 0.0), (1, -1.0)])
def test_impossible_sampling_is_an_error(steps: int, scale: float) -> None:
    with pytest.raises(ValueError, match="at least"):
        sample(Spy(), torch.ones(1, 2, 3), torch.zeros(1, 2, 4), None, steps, scale)  # type: ignore[arg-type]


@CONDITIONINGS
def test_padding_changes_no_valid_frame(make_config: Make, conditioning: Literal["prefix", "add"]) -> None:
    decoder = decoder_of(make_config, conditioning)
    x, vectors, t = torch.randn(1, 9, 128), torch.randn(1, 9, 8), torch.tensor([0.3])
    alone = decoder(x, t, vectors)
    poison = torch.full((1, 4, 128), 1e4), torch.full((1, 4, 8), 1e4)
    mask = (torch.arange(13) < 9).long()[None]
    padded = decoder(torch.cat([x, poison[0]], 1), t, torch.cat([vectors, poison[1]], 1), mask)[:, :9]
    torch.testing.assert_close(padded, alone, atol=1e-4, rtol=1e-4)


@CONDITIONINGS
def test_the_condition_is_heard_frame_by_frame(make_config: Make, conditioning: Literal["prefix", "add"]) -> None:
    decoder = decoder_of(make_config, conditioning)
    x, vectors, t = torch.randn(1, 9, 128), torch.randn(1, 9, 8), torch.tensor([0.3])
    changed = vectors.clone()
    changed[0, 4] += 1
    difference = (decoder(x, t, changed) - decoder(x, t, vectors)).abs().mean(-1)[0]
    assert difference.min() > 0
    if conditioning == "add":
        assert int(difference.argmax()) == 4


def test_noise_of_a_clip_depends_on_its_seed_alone() -> None:
    short, long = noise(7, 128, [3]), noise(50, 128, [1, 3])
    assert torch.equal(short[0], long[1, :7])
    assert not torch.equal(long[0], long[1])
