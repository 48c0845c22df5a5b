from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModel

from codec import EntangleCodecForPreTraining
from codec.discriminator import (
    DiscriminatorError,
    MelDiscriminator,
    MelDiscriminatorConfig,
    adversarial_loss,
    discriminator_loss,
    draw_windows,
    feature_loss,
    load_discriminator,
    mean_score,
)
from codec.discriminator_training import DiscriminatorTraining, Shares, slope_penalty, spoil
from codec.mel import MelSpec

MEL = {"mean": -6.0, "std": 3.0}


@pytest.fixture
def critic() -> MelDiscriminator:
    torch.manual_seed(0)
    return MelDiscriminator(MelDiscriminatorConfig(mel=MEL, windows=[8, 16], hidden_size=8)).eval()


def test_windows_lie_inside_each_clips_real_frames() -> None:
    seen = set()
    for seed in range(40):
        eight, sixteen = draw_windows([7, 8, 20], [8, 16], torch.Generator().manual_seed(seed))
        assert (eight.size, eight.rows.tolist(), sixteen.rows.tolist()) == (8, [1, 2], [2])
        assert eight.starts[0] == 0 and 0 <= int(eight.starts[1]) <= 12 and 0 <= int(sixteen.starts[0]) <= 4
        seen.add(int(sixteen.starts[0]))
    assert seen == {0, 1, 2, 3, 4}


def test_losses_are_those_of_the_papers() -> None:
    rng = np.random.default_rng(0)
    real, made = ([rng.normal(size=shape) for shape in ((3, 2), (1, 4))] for _ in range(2))
    tensors = [[torch.tensor(s) for s in scores] for scores in (real, made)]
    hinge = np.mean([np.maximum(0, 1 - s).mean() for s in real]) + np.mean([np.maximum(0, 1 + s).mean() for s in made])
    assert float(discriminator_loss(*tensors, "hinge")) == pytest.approx(hinge)
    assert float(adversarial_loss(tensors[1], "hinge")) == pytest.approx(-np.mean([s.mean() for s in made]))
    squares = np.mean([((s - 1) ** 2).mean() for s in real]) + np.mean([(s**2).mean() for s in made])
    assert float(discriminator_loss(*tensors, "least_squares")) == pytest.approx(squares)
    expected = np.mean([((s - 1) ** 2).mean() for s in made])
    assert float(adversarial_loss(tensors[1], "least_squares")) == pytest.approx(expected)
    maps = np.mean([np.abs(a - b).mean() for a, b in zip(real, made, strict=True)])
    assert float(feature_loss([[t] for t in tensors[0]], [[t] for t in tensors[1]])) == pytest.approx(maps)


def test_a_size_without_cuts_counts_for_nothing_but_keeps_its_gradient(critic: MelDiscriminator) -> None:
    scores = critic(torch.randn(2, 10, 128), draw_windows([10, 10], critic.sizes)).scores
    assert [tuple(s.shape) for s in scores] == [(2, 1), (0, 2)]
    torch.testing.assert_close(mean_score(scores), scores[0].mean())
    loss = adversarial_loss(critic(torch.randn(1, 4, 128), draw_windows([4], critic.sizes)).scores, "hinge")
    loss.backward()
    assert float(loss.detach()) == 0
    assert all(p.grad is not None and not p.grad.any() for p in critic.parameters())


def test_scores_equal_plain_convolutions_with_weights_over_their_norms(critic: MelDiscriminator) -> None:
    mel = torch.randn(1, 20, 128)
    windows = draw_windows([20], critic.sizes, torch.Generator().manual_seed(1))
    scores = critic(mel, windows).scores
    for part, window, score in zip(critic.parts, windows, scores, strict=True):
        start = int(window.starts[0])
        x = mel[:, start : start + window.size][:, None]
        for layer in [*part.layers, part.head]:
            norm = layer.parametrizations.weight
            matrix = norm.original.flatten(1)
            weight = norm.original / (norm[0]._u @ matrix @ norm[0]._v)
            x = torch.nn.functional.conv2d(x, weight, layer.bias, layer.stride, layer.padding)
            x = x if layer is part.head else torch.where(x > 0, x, 0.2 * x)
        torch.testing.assert_close(score, x.flatten(1))


def test_training_brings_each_layers_norm_to_one(critic: MelDiscriminator) -> None:
    critic.train()
    for _ in range(60):
        critic(torch.randn(1, 16, 128), draw_windows([16], critic.sizes))
    critic.eval()
    for part in critic.parts:
        for layer in [*part.layers, part.head]:
            assert float(torch.linalg.matrix_norm(layer.weight.detach().flatten(1), 2)) == pytest.approx(1, abs=0.02)


def test_padding_is_never_judged(critic: MelDiscriminator) -> None:
    mel, windows = torch.randn(2, 20, 128), draw_windows([20, 9], critic.sizes)
    poisoned = mel.clone()
    poisoned[1, 9:] = 1e4
    for a, b in zip(critic(mel, windows).scores, critic(poisoned, windows).scores, strict=True):
        assert torch.equal(a, b)


def test_save_and_load_keep_every_score_and_a_frozen_one_keeps_itself(critic: MelDiscriminator, tmp_path: Path) -> None:
    critic.train()(torch.randn(1, 16, 128), draw_windows([16], critic.sizes))
    critic.eval().save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").is_file()
    mel, windows = torch.randn(2, 20, 128), draw_windows([20, 20], critic.sizes)
    again = load_discriminator(tmp_path, MelSpec(**MEL))
    before = {name: value.clone() for name, value in again.state_dict().items()}
    for a, b in zip(critic(mel, windows).scores, again(mel, windows).scores, strict=True):
        assert torch.equal(a, b)
    assert all(torch.equal(before[name], value) for name, value in again.state_dict().items())
    assert isinstance(AutoModel.from_pretrained(tmp_path), MelDiscriminator)
    frozen = load_discriminator(tmp_path, MelSpec(**MEL))
    assert not frozen.training and not any(p.requires_grad for p in frozen.parameters())


def test_what_cannot_judge_is_told(critic: MelDiscriminator, tmp_path: Path) -> None:
    with pytest.raises(DiscriminatorError, match="no mel discriminator can be loaded"):
        load_discriminator(tmp_path / "nowhere", MelSpec())
    critic.save_pretrained(tmp_path)
    with pytest.raises(DiscriminatorError, match=r"the codec makes mel .* recipes/train_discriminator\.py"):
        load_discriminator(tmp_path, MelSpec())
    with pytest.raises(DiscriminatorError, match="must be multiples of 8"):
        MelDiscriminatorConfig(windows=[12])


def test_slope_penalty_of_a_linear_score_is_its_squared_norm() -> None:
    mel, weight = torch.randn(3, 5, 4, requires_grad=True), torch.randn(5, 4)
    scores = [(mel * weight).sum((1, 2))[:, None], 2 * (mel * weight).sum((1, 2))[1:, None]]
    squares = float(weight.square().sum())
    assert float(slope_penalty(mel, scores).detach()) == pytest.approx((1 + 9 + 9) * squares / 3, rel=1e-5)


def test_spoiled_mel_is_near_the_true_one() -> None:
    torch.manual_seed(0)
    mel = torch.randn(30, 16)
    spreads = [float((spoil(mel) - mel).std()) for _ in range(30)]
    assert min(spreads) > 0.04 and max(spreads) < 1.1
    torch.testing.assert_close(spoil(torch.ones(7, 5)).mean(), torch.tensor(1.0), atol=0.2, rtol=0)


@pytest.fixture
def lesson(model: EntangleCodecForPreTraining) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    mask = (torch.arange(24) < torch.tensor([[24], [24], [12]])).long()
    return {"mel": torch.randn(3, 24, 128), "codes": torch.randint(64, (3, 24)), "attention_mask": mask}


def test_only_the_discriminator_learns(
    critic: MelDiscriminator, model: EntangleCodecForPreTraining, lesson: dict[str, torch.Tensor]
) -> None:
    task = DiscriminatorTraining(critic, model.codec, r1_weight=2.0).train()
    assert {name.split(".")[0] for name, _ in task.named_parameters()} == {"discriminator"}
    losses = task(**lesson)
    losses["loss"].backward()
    torch.testing.assert_close(losses["loss"].detach(), losses["discriminator_loss"] + losses["r1"])  # 2 / 2
    assert float(losses["r1"]) > 0
    assert all(p.grad is not None and p.grad.any() for p in critic.parts.parameters() if p.ndim > 1)
    assert all(p.grad is None for p in model.codec.parameters())


def test_evaluation_is_of_the_codecs_own_mel_and_fixed(
    critic: MelDiscriminator, model: EntangleCodecForPreTraining, lesson: dict[str, torch.Tensor]
) -> None:
    task = DiscriminatorTraining(critic, model.codec, shares=Shares(0.0, 0.0)).eval()
    losses = [task(**lesson) for _ in range(2)]
    assert all(torch.equal(losses[0][name], losses[1][name]) for name in losses[0])
    decoded = model.codec.decode(
        lesson["codes"][:, None], lesson["attention_mask"], seeds=[0, 1, 2], vocode=False
    ).mel.detach()
    windows = draw_windows([24, 24, 12], critic.sizes, torch.Generator().manual_seed(0))
    real, made = ([s.detach().numpy() for s in critic(x, windows).scores] for x in (lesson["mel"], decoded))
    right = [*(s.mean(1) > 0 for s in real), *(s.mean(1) < 0 for s in made)]
    assert float(losses[0]["accuracy"]) == pytest.approx(np.concatenate(right).mean())
    expected = np.mean([np.maximum(0, 1 - s).mean() for s in real]) + np.mean(
        [np.maximum(0, 1 + s).mean() for s in made]
    )
    assert float(losses[0]["loss"]) == pytest.approx(expected, rel=1e-5)


def test_made_mel_comes_in_its_shares(
    critic: MelDiscriminator,
    model: EntangleCodecForPreTraining,
    lesson: dict[str, torch.Tensor],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    steps: list[tuple[int, int]] = []

    def spy(decoder: Any, vectors: Any, z: Any, mask: Any, num_steps: int, guidance: float) -> torch.Tensor:
        steps.append((num_steps, len(z)))
        return torch.zeros_like(z)

    monkeypatch.setattr("codec.discriminator_training.sample", spy)
    task = DiscriminatorTraining(critic, model.codec, shares=Shares(0.5, 0.25))
    for _ in range(200):
        made = task.made.mixed(**{{"attention_mask": "mask"}.get(name, name): v for name, v in lesson.items()})
        assert not made[2, 12:].any()  # behind the end
    one = sum(rows for number, rows in steps if number == 1) / 600
    many = sum(rows for number, rows in steps if number > 1) / 600
    assert one == pytest.approx(0.5, abs=0.07) and many == pytest.approx(0.25, abs=0.07)
    assert {number for number, _ in steps} == {1, 4, 5, 6, 7, 8}


def test_it_learns_to_tell_true_from_made(critic: MelDiscriminator, make_config: Callable[..., Any]) -> None:
    torch.manual_seed(0)
    codec = EntangleCodecForPreTraining(make_config()).codec
    task = DiscriminatorTraining(critic, codec, r1_weight=0.1).train()
    optimizer = torch.optim.AdamW(task.parameters(), lr=1e-2)
    lines = torch.linspace(-1, 1, 128).expand(8, 24, 128) + 0.1 * torch.randn(8, 24, 128)
    batch = {"mel": lines, "codes": torch.randint(64, (8, 24))}
    for _ in range(25):
        optimizer.zero_grad()
        task(**batch)["loss"].backward()
        optimizer.step()
    assert float(task.eval()(**batch)["accuracy"]) > 0.9
