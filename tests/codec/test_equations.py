"""Equations 1–12 against formulas written out in NumPy, which share nothing with the code (eq. 13: `test_refinement.py`)."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from codec import EntangleCodecConfig, EntangleCodecForPreTraining
from codec.flow import flow_pair, l1_per_frame, sample
from codec.text import contrastive_loss
from codec.transformer import ZeroLinear

Array = NDArray[np.float64]
T, BINS = 11, 128


@pytest.fixture(params=["prefix", "add"])
def model(make_config: Callable[..., EntangleCodecConfig], request: pytest.FixtureRequest) -> Any:
    """A stage-1 model in double precision in which nothing is zero, one or the identity."""
    torch.manual_seed(0)
    model = EntangleCodecForPreTraining(make_config(conditioning=request.param)).eval()
    for module in model.modules():
        if isinstance(module, ZeroLinear):
            torch.nn.init.normal_(module.weight, std=0.2)
    for name, parameter in model.named_parameters():
        if "norm.weight" in name or name.endswith(".bias"):
            torch.nn.init.normal_(parameter, mean=1.0 if "norm" in name else 0.0, std=0.2)
    model.codec.quantizer.standardise.running_mean.normal_()
    model.codec.quantizer.standardise.running_var.uniform_(0.5, 2.0)
    return model


@pytest.fixture
def weights(model: Any) -> Mapping[str, Array]:
    return {name: value.double().numpy() for name, value in model.state_dict().items()}


@pytest.fixture
def mel() -> Array:
    return np.random.default_rng(0).standard_normal((T, BINS))


def close(ours: torch.Tensor, theirs: Any) -> None:
    np.testing.assert_allclose(ours.detach().double().numpy(), theirs, rtol=2e-4, atol=2e-4)


def as_batch(x: Array) -> torch.Tensor:
    return torch.from_numpy(x)[None].float()


# ---- the parts of a Transformer, by their definitions


def linear(x: Array, w: Mapping[str, Array], name: str) -> Array:
    return x @ w[f"{name}.weight"].T + w.get(f"{name}.bias", 0.0)


def rms(x: Array) -> Array:
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-6)


def silu(x: Array) -> Array:
    return x / (1 + np.exp(-x))


def gelu(x: Array) -> Array:
    return x * 0.5 * (1 + np.vectorize(math.erf)(x / np.sqrt(2)))


def softmax(x: Array) -> Array:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def rotate(x: Array, positions: Array) -> Array:
    """Rotary positions as complex numbers: pair (j, j + D / 2) turns by position × 10000^(−2j / D)."""
    half = x.shape[-1] // 2
    turn = np.exp(1j * positions[:, None] * 10_000.0 ** (-np.arange(half) / half))
    z = (x[:, :half] + 1j * x[:, half:]) * turn
    return np.concatenate([z.real, z.imag], -1)


def attention(
    x: Array, w: Mapping[str, Array], name: str, heads: int, positions: Array | None = None, causal: bool = False
) -> Array:
    size, qkv, parts = x.shape[-1] // heads, x @ w[f"{name}.qkv.weight"].T, []
    for h in range(heads):
        q, k, v = (qkv[:, j * x.shape[-1] + h * size : j * x.shape[-1] + (h + 1) * size] for j in range(3))
        if positions is not None:
            q, k = rotate(q, positions), rotate(k, positions)
        scores = q @ k.T / np.sqrt(size)
        if causal:
            scores = np.where(np.tril(np.ones_like(scores)) > 0, scores, -np.inf)
        parts.append(softmax(scores) @ v)
    return np.concatenate(parts, -1) @ w[f"{name}.out.weight"].T


def plain_block(x: Array, w: Mapping[str, Array], name: str, heads: int, **how: Any) -> Array:
    x = x + attention(rms(x) * w[f"{name}.attention_norm.weight"], w, f"{name}.attention", heads, **how)
    up = gelu((rms(x) * w[f"{name}.feed_forward_norm.weight"]) @ w[f"{name}.feed_forward.up.weight"].T)
    return x + up @ w[f"{name}.feed_forward.down.weight"].T


def encoder(mel: Array, w: Mapping[str, Array]) -> Array:
    """Eq. 1–3."""
    projected = linear(mel, w, "codec.encoder.project")  # (1)
    x = np.concatenate([w["codec.encoder.cls"][None], projected])  # (2)
    for layer in range(2):  # (3)
        x = plain_block(x, w, f"codec.encoder.layers.{layer}", 2, positions=np.arange(len(x)))
    return rms(x) * w["codec.encoder.norm.weight"]


def decoder(x_t: Array, t: float, condition: Array, w: Mapping[str, Array], prefix: bool) -> Array:
    """Eq. 7, the best linear guess of the velocity included (docs/paper.md)."""
    name = "codec.decoder"
    frames = linear(x_t, w, f"{name}.project")
    codes = linear(condition * np.sqrt(condition.shape[-1]), w, f"{name}.condition.0")
    codes = linear(silu(codes), w, f"{name}.condition.2")
    places = np.arange(len(x_t))
    if prefix:
        x, places = np.concatenate([codes + w[f"{name}.segment"], frames]), np.tile(places, 2)
    else:
        x = frames + codes
    angles = 1000 * t * 10_000.0 ** (-np.arange(128) / 128)
    time = linear(np.concatenate([np.sin(angles), np.cos(angles)]), w, f"{name}.time.mlp.0")
    time = linear(silu(time), w, f"{name}.time.mlp.2")

    def norm(x: Array, which: str) -> Array:
        return rms(x) * (1 + linear(time, w, f"{which}.scale"))

    for layer in range(2):
        block = f"{name}.layers.{layer}"
        x = x + attention(norm(x, f"{block}.attention_norm"), w, f"{block}.attention", 2, positions=places)
        gate, value = np.split(
            norm(x, f"{block}.feed_forward_norm") @ w[f"{block}.feed_forward.up.weight"].T, 2, axis=-1
        )
        x = x + (silu(gate) * value) @ w[f"{block}.feed_forward.down.weight"].T
    out = linear(norm(x[-len(x_t) :], f"{name}.norm"), w, f"{name}.out")
    return out + (2 * t - 1) / (t**2 + (1 - t) ** 2) * x_t


# ---- the equations


def test_encoder_eq_1_to_3(model: Any, weights: Mapping[str, Array], mel: Array) -> None:
    hidden, cls = model.codec.encoder(as_batch(mel))
    expected = encoder(mel, weights)
    close(cls[0], expected[0])
    close(hidden[0], expected[1:])


def test_embeddings_and_contrastive_loss_eq_4_5_10(model: Any, weights: Mapping[str, Array]) -> None:
    rng = np.random.default_rng(1)
    mels, captions = rng.standard_normal((3, T, BINS)), [rng.integers(3, 64, n) for n in (5, 2, 7)]
    audio = [linear(encoder(m, weights)[0], weights, "audio_projection") for m in mels]  # (4)
    text = []
    for ids in captions:  # (5)
        x = weights["text_tower.embed.weight"][ids] + weights["text_tower.positions"][: len(ids)]
        x = plain_block(x, weights, "text_tower.layers.0", 2, causal=True)
        text.append((rms(x[-1]) * weights["text_tower.norm.weight"]) @ weights["text_tower.project.weight"].T)
    padded = torch.zeros(3, 7, dtype=torch.long)
    for row, ids in zip(padded, captions, strict=True):
        row[: len(ids)] = torch.from_numpy(ids)
    features = torch.from_numpy(mels).float()
    ours = model.audio_projection(model.codec.encoder(features).cls), model.text_tower(padded, torch.tensor([5, 2, 7]))
    close(ours[0], audio)
    close(ours[1], text)
    a, t = (np.stack([v / np.linalg.norm(v) for v in side]) for side in (audio, text))  # (10)
    scores = a @ t.T * np.exp(weights["logit_scale"])
    both = [-np.log(np.diagonal(softmax(s))).mean() for s in (scores, scores.T)]
    close(contrastive_loss(*ours, model.logit_scale), np.mean(both))


def test_quantizer_eq_6_and_11(model: Any, weights: Mapping[str, Array], mel: Array) -> None:
    name = "codec.quantizer"
    h = linear(gelu(linear(encoder(mel, weights)[1:], weights, f"{name}.project.0")), weights, f"{name}.project.2")
    variance = weights[f"{name}.standardise.running_var"]
    h = (h - weights[f"{name}.standardise.running_mean"]) / np.sqrt(variance + 1e-5)
    h /= np.linalg.norm(h, axis=-1, keepdims=True)  # (6)
    rows = weights[f"{name}.codebook"] / np.linalg.norm(weights[f"{name}.codebook"], axis=-1, keepdims=True)
    nearest = np.linalg.norm(h[:, None] - rows, axis=-1).argmin(-1)
    squares = ((h - rows[nearest]) ** 2).sum(-1)

    hidden = model.codec.encoder(as_batch(mel)).hidden.detach().requires_grad_()
    out = model.codec.quantizer(hidden)
    close(out.latents[0], h)
    assert out.codes[0].tolist() == nearest.tolist()
    beta = model.config.commitment
    close(out.loss, (1 + beta) * squares.mean())  # (11)
    assert model.codec.quantizer.search(model.codec.quantizer.unit_codebook()).tolist() == list(range(len(rows)))

    # sg(): the codebook's share of the gradient is that of the first term, the latents' that of the second
    out.latents.retain_grad()
    out.loss.backward()
    close(out.latents.grad[0], 2 * beta * (h - rows[nearest]) / T)
    moved = 2 * (rows[nearest] - h) / T
    norms = np.linalg.norm(weights[f"{name}.codebook"], axis=-1)
    expected = np.zeros_like(rows)
    for code, gradient in zip(nearest, moved, strict=True):  # through the row's own normalisation: its tangential part
        expected[code] += (gradient - rows[code] * (rows[code] @ gradient)) / norms[code]
    close(model.codec.quantizer.codebook.grad, expected)


def test_velocity_eq_7_and_loss_eq_9(model: Any, weights: Mapping[str, Array], mel: Array) -> None:
    rng = np.random.default_rng(2)
    condition, z = rng.standard_normal((T, 8)), rng.standard_normal((T, BINS))
    condition /= np.linalg.norm(condition, axis=-1, keepdims=True)
    sigma, prefix = model.config.sigma_min, model.config.conditioning == "prefix"
    for t in (0.0, 0.3, 1.0):
        x_t = (1 - (1 - sigma) * t) * z + t * mel
        velocity = decoder(x_t, t, condition, weights, prefix)
        time = torch.tensor([t])
        noisy, target = flow_pair(as_batch(mel), as_batch(z), time, sigma)
        ours = model.codec.decoder(noisy, time, as_batch(condition))
        close(ours[0], velocity)  # (7)
        close(l1_per_frame(ours, target).mean(), np.abs(velocity - (mel - (1 - sigma) * z)).mean())  # (9)


def test_sum_of_losses_eq_8(model: Any, mel: Array) -> None:
    ids, lengths = torch.randint(3, 60, (2, 5), generator=torch.Generator().manual_seed(0)), torch.tensor([5, 4])
    model.config.contrastive_weight = 0.5
    out = model(as_batch(mel).repeat(2, 1, 1), None, ids, lengths)
    close(out.loss, float(out.flow_loss) + 0.5 * float(out.contrastive_loss) + float(out.vq_loss))


@pytest.mark.parametrize(("steps", "guidance"), [(1, 0.0), (1, 1.0), (3, 0.0), (3, 0.7)])
def test_euler_with_guidance_eq_12(model: Any, weights: Mapping[str, Array], steps: int, guidance: float) -> None:
    rng = np.random.default_rng(3)
    condition, z = rng.standard_normal((T, 8)), rng.standard_normal((T, BINS))
    prefix, x, calls = model.config.conditioning == "prefix", z, []
    for step in range(steps):
        t = step / steps
        heard, deaf = (decoder(x, t, c, weights, prefix) for c in (condition, np.zeros_like(condition)))
        x = x + ((1 + guidance) * heard - guidance * deaf) / steps
    hook = model.codec.decoder.register_forward_pre_hook(
        lambda _, given: calls.append((given[1].tolist(), len(given[0])))
    )
    close(sample(model.codec.decoder, as_batch(condition), as_batch(z), None, steps, guidance)[0], x)
    hook.remove()
    rows = 2 if guidance else 1
    assert [(times[0], count) for times, count in calls] == [(pytest.approx(s / steps), rows) for s in range(steps)]
