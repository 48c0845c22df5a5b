"""Memory of the codec's steps in shapes alone, against the same steps on real tensors."""

from contextlib import nullcontext
from typing import Any

import pytest
import torch

from codec import EntangleCodecConfig, VocosConfig, planning
from codec.discriminator import MelDiscriminator, MelDiscriminatorConfig
from codec.live_tensors import peak_bytes

SMALL: dict[str, Any] = {
    **{f"{part}{name}": value for part in ("", "decoder_", "text_") for name, value in {"hidden_size": 64}.items()},
    **{f"{part}num_hidden_layers": 2 for part in ("", "decoder_", "text_")},
    **{f"{part}num_attention_heads": 2 for part in ("", "decoder_", "text_")},
    **{f"{part}intermediate_size": 128 for part in ("", "decoder_", "text_")},
    "codebook_size": 128,
    "projection_size": 16,
    "text_vocab_size": 100,
    "text_max_length": 32,
}


def test_the_peak_is_the_sum_of_what_is_alive() -> None:
    kept = torch.zeros(1000)

    def action() -> None:
        first = kept + 1  # 4 kB, gone before the third
        second = first.view(10, 100) * 2  # the view is no memory
        del first
        second.t().contiguous()

    assert peak_bytes(action, [kept, kept.view(10, 100)]) == 3 * 4000


@pytest.mark.parametrize("conditioning", ["prefix", "add"])
@pytest.mark.parametrize("half", [False, True], ids=["float32", "bf16"])
@pytest.mark.parametrize("stage", [1, 2, "2, trained along"])
def test_shapes_alone_tell_what_a_step_takes(
    stage: int | str, half: bool, conditioning: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = EntangleCodecConfig(**SMALL, conditioning=conditioning, num_steps=2)
    critic = MelDiscriminatorConfig(mel=config.mel, windows=[16, 32], hidden_size=16, num_hidden_layers=2)

    def measure() -> Any:
        if stage == 1:
            return planning.stage_one_bytes(config, 3, 1.0, half)
        return planning.stage_two_bytes(config, critic, 3, 1.0, half, witness=True, trained_along=stage != 2)

    planned = measure()
    monkeypatch.setattr(planning, "in_shapes", nullcontext)  # the same on real tensors
    taken = measure()
    assert planned[:3] == taken[:3] and planned.total == pytest.approx(taken.total, rel=0.02)
    assert planned.weights > 4 * 100 * 64 and planned.optimizer == pytest.approx(2 * planned.gradients, rel=0.01)


@pytest.mark.parametrize("model", ["discriminator", "vocoder"])
def test_shapes_tell_of_the_small_models_too(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config = EntangleCodecConfig(**SMALL, num_steps=2)
    critic = MelDiscriminatorConfig(mel=config.mel, windows=[16, 32], hidden_size=16, num_hidden_layers=2)
    vocoder = VocosConfig(mel=config.mel, hidden_size=32, intermediate_size=64, num_hidden_layers=2)

    def measure() -> Any:
        if model == "discriminator":
            return planning.discriminator_bytes(config, critic, 3, 1.0, False)
        return planning.vocoder_bytes(vocoder, 3, 1.0, False, decoded=config)

    planned = measure()
    monkeypatch.setattr(planning, "in_shapes", nullcontext)
    taken = measure()
    assert planned[:3] == taken[:3] and planned.total == pytest.approx(taken.total, rel=0.02)


def test_an_average_is_a_copy_and_a_trained_discriminator_has_states() -> None:
    config = EntangleCodecConfig(**SMALL)
    critic = MelDiscriminatorConfig(mel=config.mel, windows=[16, 32], hidden_size=16, num_hidden_layers=2)
    plain, averaged = (planning.stage_one_bytes(config, 2, 1.0, False, averaged=kept) for kept in (False, True))
    assert averaged == plain._replace(weights=2 * plain.weights - _batch_bytes(config))
    two = [planning.stage_two_bytes(config, critic, 2, 1.0, False, trained_along=along) for along in (False, True)]
    size = 4 * sum(p.numel() for p in MelDiscriminator(critic).parameters())
    assert two[1].weights == two[0].weights and two[1].gradients - two[0].gradients == size
    assert two[1].optimizer - two[0].optimizer == pytest.approx(2 * size, rel=0.01)


def _batch_bytes(config: EntangleCodecConfig) -> int:
    mel, captions = 4 * 50 * config.mel_spec.num_mel_bins, 8 * config.text_max_length
    return 2 * (mel + captions + 8)


def test_a_longer_crop_takes_more_and_a_larger_batch_too() -> None:
    config = EntangleCodecConfig(**SMALL)
    base, longer, more = (
        planning.stage_one_bytes(config, *size, half=False) for size in ((2, 1.0), (2, 2.0), (4, 1.0))
    )
    assert base[:3] != longer and base.activations < more.activations and base.activations < longer.activations
