from pathlib import Path

import numpy as np
import pytest
import torch

from codec import VocosConfig, VocosModel
from codec.mel import MelSpec, log_mel
from codec.vocoder_training import VocoderTraining, spectral_loss

NUMBERS = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}


@pytest.fixture
def vocoder() -> VocosModel:
    torch.manual_seed(0)
    return VocosModel(VocosConfig(**NUMBERS)).eval()


def test_parameter_names_are_the_packages(vocoder: VocosModel) -> None:
    names = set(vocoder.state_dict())
    layer = {
        "dwconv.weight",
        "dwconv.bias",
        "norm.weight",
        "norm.bias",
        "pwconv1.weight",
        "pwconv1.bias",
        "pwconv2.weight",
        "pwconv2.bias",
        "gamma",
    }
    expected = {f"backbone.convnext.{i}.{name}" for i in (0, 1) for name in layer}
    expected |= {
        f"backbone.{part}.{kind}" for part in ("embed", "norm", "final_layer_norm") for kind in ("weight", "bias")
    }
    assert names == expected | {"head.out.weight", "head.out.bias", "head.istft.window"}


def test_equals_vocos_written_out(vocoder: VocosModel) -> None:
    """The published architecture from its description, sample by sample in float64, on the same weights."""
    w = {name: value.double().numpy() for name, value in vocoder.state_dict().items()}
    mel = torch.randn(1, 6, 128)

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        centred = x - x.mean(-1, keepdims=True)
        return centred / np.sqrt(x.var(-1, keepdims=True) + 1e-6) * w[f"{name}.weight"] + w[f"{name}.bias"]

    def conv(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, depthwise: bool) -> np.ndarray:
        padded = np.pad(x, ((3, 3), (0, 0)))
        rows = [padded[t : t + 7] for t in range(len(x))]
        kernel = "kd,dk->d" if depthwise else "ki,oik->o"
        return np.stack([np.einsum(kernel, r, weight[:, 0] if depthwise else weight) for r in rows]) + bias

    def gelu(x: np.ndarray) -> np.ndarray:
        return torch.nn.functional.gelu(torch.from_numpy(x)).numpy()

    x = norm(
        conv(mel[0].double().numpy(), w["backbone.embed.weight"], w["backbone.embed.bias"], False), "backbone.norm"
    )
    for i in (0, 1):
        p = f"backbone.convnext.{i}"
        h = norm(conv(x, w[f"{p}.dwconv.weight"], w[f"{p}.dwconv.bias"], True), f"{p}.norm")
        h = (
            gelu(h @ w[f"{p}.pwconv1.weight"].T + w[f"{p}.pwconv1.bias"]) @ w[f"{p}.pwconv2.weight"].T
            + w[f"{p}.pwconv2.bias"]
        )
        x = x + w[f"{p}.gamma"] * h
    out = norm(x, "backbone.final_layer_norm") @ w["head.out.weight"].T + w["head.out.bias"]
    magnitude, phase = np.minimum(np.exp(out[:, :961]), 1e2), out[:, 961:]
    frames = np.fft.irfft(magnitude * np.exp(1j * phase), 1920) * w["head.istft.window"]
    signal, envelope = np.zeros((2, 5 * 480 + 1920))
    for t, frame in enumerate(frames):
        signal[t * 480 : t * 480 + 1920] += frame
        envelope[t * 480 : t * 480 + 1920] += w["head.istft.window"] ** 2
    expected = (signal / np.maximum(envelope, 1e-11))[720:-720]
    with torch.no_grad():
        ours = vocoder(mel)[0].numpy()
    assert ours.shape == (6 * 480,)
    np.testing.assert_allclose(ours, expected, atol=1e-4)


def test_a_clip_sounds_alone_as_it_does_in_a_batch(vocoder: VocosModel) -> None:
    mel = torch.randn(2, 20, 128)
    mask = (torch.arange(20) < torch.tensor([[20], [7]])).long()
    poisoned = torch.where(mask[..., None].bool(), mel, torch.tensor(50.0))
    with torch.no_grad():
        batch, alone = vocoder(poisoned, mask), vocoder(mel[1:, :7])
    torch.testing.assert_close(batch[1, : 7 * 480], alone[0], atol=1e-4, rtol=1e-3)


def test_save_load_and_package_checkpoint(vocoder: VocosModel, tmp_path: Path) -> None:
    mel = torch.randn(1, 5, 128)
    vocoder.save_pretrained(tmp_path)
    assert torch.equal(VocosModel.from_pretrained(tmp_path)(mel), vocoder(mel))
    torch.save(
        {**vocoder.state_dict(), "feature_extractor.mel_spec.spectrogram.window": torch.ones(4)}, tmp_path / "vocos.bin"
    )
    assert torch.equal(VocosModel.from_package(tmp_path / "vocos.bin", vocoder.config).eval()(mel), vocoder(mel))


def test_training_on_the_same_waveform_costs_nothing_more() -> None:
    wave = 0.1 * torch.randn(2, 4_800)
    assert spectral_loss(wave, wave, 512) == 0
    assert spectral_loss(0.5 * wave, wave, 512) == pytest.approx(0.5 + np.log(2), abs=1e-3)


def test_a_few_steps_lower_the_loss() -> None:
    torch.manual_seed(0)
    task = VocoderTraining(VocosModel(VocosConfig(**NUMBERS, mel={"mean": -6.0, "std": 3.0}))).eval()
    wave = 0.3 * torch.sin(torch.arange(9_600) * 0.1)[None] + 0.01 * torch.randn(1, 9_600)
    optimizer = torch.optim.AdamW(task.parameters(), lr=5e-3)
    losses = []
    for _ in range(25):
        losses.append(task(wave)["loss"])
        losses[-1].backward()
        optimizer.step()
        optimizer.zero_grad()
    assert losses[-1] < 0.7 * losses[0]


def test_frame_size_must_agree_with_the_mel() -> None:
    with pytest.raises(ValueError, match="hop"):
        VocosConfig(mel={"hop_length": 256})
    with pytest.raises(ValueError, match=MelSpec(mean=1.0).fingerprint):
        VocosModel(VocosConfig(**NUMBERS)).require_mel(MelSpec(mean=1.0), "a codec")
    assert log_mel(torch.zeros(960), MelSpec()).shape == (2, 128)
