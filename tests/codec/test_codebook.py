"""The start of the codebook on data: a linear MLP_VQ on principal components, clusters that describe the frames."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from codec import EntangleCodecConfig, EntangleCodecForPreTraining
from codec.codebook import codebook_use, start_codebook
from codec.flow import linear_velocity


def mels(clips: int, frames: int = 40) -> Tensor:
    """Frames of six hidden directions plus a little noise, `(clips, frames, 128)`."""
    generator = torch.Generator().manual_seed(0)
    basis = torch.randn(6, 128, generator=generator)
    factors = torch.randn(clips, frames, 6, generator=generator) * torch.tensor([4.0, 2.0, 1.0, 1.0, 0.5, 0.5])
    return (factors @ basis) / 6 + 0.05 * torch.randn(clips, frames, 128, generator=generator)


@pytest.fixture
def fresh(make_config: Callable[..., EntangleCodecConfig]) -> EntangleCodecForPreTraining:
    torch.manual_seed(0)
    return EntangleCodecForPreTraining(make_config())


def explained(model: EntangleCodecForPreTraining, data: Tensor) -> float:
    """Share of the frames' variance that the mean frame of each code explains."""
    codes = model.eval().codec.encode(data).audio_codes[:, 0].flatten()
    frames = data.flatten(0, 1)
    means = (
        torch.zeros(64, 128).index_add_(0, codes, frames) / torch.bincount(codes, minlength=64).clamp_min(1)[:, None]
    )
    return float(1 - (frames - means[codes]).square().sum() / (frames - frames.mean(0)).square().sum())


def test_the_first_layers_are_the_identity(fresh: EntangleCodecForPreTraining) -> None:
    x, codec = mels(2), fresh.eval().codec
    projected = codec.encoder.project(x)
    torch.testing.assert_close(codec.encoder(x).hidden, F.rms_norm(projected, (32,), eps=1e-6))
    t = torch.tensor([0.0, 0.7])
    velocity = codec.decoder(x, t, torch.randn(2, 40, 8))
    torch.testing.assert_close(velocity, linear_velocity(t)[:, None, None] * x)


def test_the_first_codes_describe_the_frames(fresh: EntangleCodecForPreTraining) -> None:
    data = mels(100)
    missed_at_random = 1 - explained(fresh, data[:50])
    start_codebook(fresh, ({"input_features": clip[None]} for clip in data[50:]), frames_per_code=30)
    assert 1 - explained(fresh, data[:50]) < 0.6 * missed_at_random  # on frames that it did not see
    codes = fresh.codec.encode(data[:50]).audio_codes
    assert codes is not None
    assert codebook_use(codes, 64).used > 0.9
    assert fresh.code_hits.tolist() == [1.0] * 64


def test_mlp_vq_starts_as_the_principal_components(fresh: EntangleCodecForPreTraining) -> None:
    data = mels(64)
    start_codebook(fresh, [{"input_features": data}], power=1.0)
    hidden = fresh.codec.encoder(data).hidden.flatten(0, 1)
    ours = fresh.codec.quantizer.project(hidden).detach()
    centred = hidden - hidden.mean(0)
    components = centred @ torch.linalg.svd(centred, full_matrices=False).Vh[:8].T  # an independent road to them
    # equal up to a rotation: all inner products agree
    torch.testing.assert_close(
        ours[:200] @ ours[:200].T, (components[:200] @ components[:200].T).detach(), atol=1e-2, rtol=1e-3
    )


def test_padding_does_not_enter_the_start(make_config: Callable[..., EntangleCodecConfig]) -> None:
    codebooks = []
    for padding in (0.0, 1e3):
        torch.manual_seed(0)
        model = EntangleCodecForPreTraining(make_config())
        data, mask = mels(20), (torch.arange(40) < torch.randint(20, 40, (20, 1))).long()
        features = torch.where(mask[..., None].bool(), data, torch.tensor(padding))
        start_codebook(model, [{"input_features": features, "attention_mask": mask}])
        codebooks.append(model.codec.quantizer.codebook)
    torch.testing.assert_close(*codebooks)


def test_what_cannot_start_is_told(make_config: Callable[..., EntangleCodecConfig]) -> None:
    with pytest.raises(ValueError, match="hidden_size 32 must be at least twice codebook_dim 20"):
        start_codebook(EntangleCodecForPreTraining(make_config(codebook_dim=20)), [])
    with pytest.raises(ValueError, match="no frames"):
        start_codebook(EntangleCodecForPreTraining(make_config()), [])
