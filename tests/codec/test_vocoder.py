import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from codec import EntangleCodecForPreTraining, VocosConfig, VocosModel
from codec.audio import write_audio
from codec.coded_crops import NO_CODE, CodedWaveformCrops, CodesError
from codec.data import Clip
from codec.entangle import CheckpointError
from codec.mel import MelSpec, log_mel
from codec.vocoder_training import (
    DecodedMel,
    VocoderTraining,
    spectral_loss,
    starting_vocoder,
)

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


def test_the_decoded_mel_is_the_samplers(model: EntangleCodecForPreTraining) -> None:
    """With the seeds that were drawn, it is `decode`'s mel of `encode`'s codes; nothing in it learns."""
    codec, mel = model.codec, torch.randn(3, 9, 128)
    decoded = DecodedMel(codec)
    torch.manual_seed(1)
    heard = decoded(mel)
    torch.manual_seed(1)
    seeds = torch.randint(2**31, (3,)).tolist()
    codes = codec.encode(mel).audio_codes
    with torch.no_grad():  # with gradients another kernel multiplies, which rounds otherwise
        assert torch.equal(heard, codec.decode(codes, seeds=seeds, vocode=False).mel)
    torch.manual_seed(1)
    assert torch.equal(heard, decoded(mel, codes[:, 0]))
    assert not torch.equal(heard, decoded(mel))  # other noise in the next batch
    assert not any(p.requires_grad for p in codec.parameters())


def test_frames_without_codes_stay_silent_and_unheard(model: EntangleCodecForPreTraining) -> None:
    mel = torch.randn(1, 8, 128)
    codes = model.codec.encode(mel[:, :5]).audio_codes[:, 0]
    padded = torch.nn.functional.pad(codes, (0, 3), value=NO_CODE)
    decoded = DecodedMel(model.codec)
    torch.manual_seed(0)
    heard = decoded(mel, padded)
    torch.manual_seed(0)
    torch.testing.assert_close(heard[:, :5], decoded(mel[:, :5], codes), atol=1e-5, rtol=1e-5)
    assert torch.equal(heard[:, 5:], mel[:, 5:])


def test_finetuning_hears_the_decoder_and_aims_at_the_waveform(model: EntangleCodecForPreTraining) -> None:
    vocoder = model.codec.vocoder
    wave = 0.1 * torch.randn(2, 4_800)
    plain, tuned = VocoderTraining(vocoder).eval(), VocoderTraining(vocoder, decoded=DecodedMel(model.codec)).eval()
    torch.manual_seed(3)
    lesson = tuned.lesson(wave)
    assert torch.equal(lesson.waveform, wave) and torch.equal(lesson.mel, plain.lesson(wave).heard)
    torch.manual_seed(3)
    assert torch.equal(lesson.heard, DecodedMel(model.codec)(lesson.mel))
    assert not torch.equal(lesson.heard, lesson.mel)
    # codes are of the clip as it is: no random level where they are given
    codes = model.codec.encode(lesson.mel).audio_codes[:, 0]
    assert torch.equal(tuned.train().lesson(wave, codes).waveform, wave)
    assert not torch.equal(tuned.lesson(wave).waveform, wave)
    assert set(tuned.state_dict()) == set(plain.state_dict())  # the codec is not in the checkpoints


def test_crops_and_their_codes_are_of_the_same_frames(tmp_path: Path) -> None:
    spec = MelSpec()
    clips = []
    for name, frames in (("long", 40), ("short", 3)):
        wave = np.repeat(np.arange(frames) / 64, 480)[:-100].astype(np.float32)
        write_audio(tmp_path / f"{name}.wav", wave, 24_000)
        clips.append(Clip(tmp_path / f"{name}.wav", ""))
    lengths = {"long": 40, "short": 3}
    crops = CodedWaveformCrops(
        clips, spec, 0.2, 0, waveforms_only=True, codes_of=lambda path: np.arange(lengths[Path(path).stem])[None]
    )
    starts = set()
    for epoch in range(8):
        crops.set_epoch(epoch)
        row = crops[0]
        assert row["waveform"].shape == (10 * 480,) and row["codes"].shape == (10,)
        np.testing.assert_allclose(row["waveform"][::480], row["codes"] / 64, atol=1e-3)
        assert torch.equal(row["waveform"], crops[0]["waveform"])
        starts.add(int(row["codes"][0]))
    assert len(starts) > 3
    assert crops[1]["codes"].tolist() == [0, 1, 2, *[NO_CODE] * 7]
    assert not crops[1]["waveform"][3 * 480 - 100 :].any()
    crops.codes_of = lambda path: np.arange(39)[None]
    with pytest.raises(CodesError, match=r"40 frames, but its codes have shape \(1, 39\)"):
        crops[0]


def test_what_a_training_starts_from(model: EntangleCodecForPreTraining, tmp_path: Path) -> None:
    codec = model.codec
    copy = starting_vocoder(codec, {}, None, own=True)
    assert copy is not codec.vocoder
    assert all(torch.equal(a, b) for a, b in zip(copy.parameters(), codec.vocoder.parameters(), strict=True))
    assert starting_vocoder(codec, NUMBERS, None, own=False).config.hidden_size == 32
    copy.save_pretrained(tmp_path / "vocoder")
    codec.vocoder = None
    with pytest.raises(CheckpointError, match="this codec has none"):
        starting_vocoder(codec, {}, None, own=True)
    loaded = starting_vocoder(codec, {}, tmp_path / "vocoder", own=True)
    assert torch.equal(loaded.head.out.weight, copy.head.out.weight)
    with pytest.raises(CheckpointError, match="no vocoder can be loaded"):
        starting_vocoder(codec, {}, tmp_path / "nowhere", own=False)
    VocosModel(VocosConfig(**NUMBERS, mel={"floor": 1e-3})).save_pretrained(tmp_path / "other")
    with pytest.raises(ValueError, match="the vocoder was trained on"):
        starting_vocoder(codec, {}, tmp_path / "other", own=False)


def test_a_vocoder_adapts_to_other_statistics_alone(model: EntangleCodecForPreTraining) -> None:
    vocoder, mel = model.codec.vocoder, torch.randn(1, 80, 128)
    own = vocoder.config.mel_spec
    other = dataclasses.replace(own, mean=own.mean + 1.5, std=own.std * 0.7)
    before = vocoder(mel)
    vocoder.adapt(other, "the codec")
    assert vocoder.config.mel_spec == other
    after = vocoder((mel * own.std + own.mean - other.mean) / other.std)
    inside = slice(20 * 480, 60 * 480)  # the ends see the padding of every layer
    torch.testing.assert_close(after[:, inside], before[:, inside], rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="train a vocoder on the codec's mel"):
        vocoder.adapt(dataclasses.replace(other, floor=1e-3), "the codec")
