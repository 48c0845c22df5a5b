"""The codec's laws: codes are a property of the clip, checkpoints round-trip, losses route their gradients."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import AutoConfig, AutoFeatureExtractor, AutoModel

from codec import EntangleCodec, EntangleCodecConfig, EntangleCodecForPreTraining, EntangleCodecModel
from codec.base import Codec
from codec.entangle import CheckpointError
from codec.mel import MelSpec
from codec.text import CaptionTokenizer, contrastive_loss
from codec.zoo import load_codec

Clips = list[NDArray[np.float32]]


@pytest.fixture
def codec(model: EntangleCodecForPreTraining) -> EntangleCodec:
    return EntangleCodec(model.codec)


def same(a: list[NDArray[np.int64]], b: list[NDArray[np.int64]]) -> bool:
    return len(a) == len(b) and all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def test_it_satisfies_the_contract(codec: EntangleCodec) -> None:
    assert isinstance(codec, Codec)
    assert (codec.sampling_rate, codec.frame_rate, codec.num_codebooks, codec.codebook_size) == (24_000, 50.0, 1, 64)
    vectors = codec.codebook_vectors()
    assert vectors is not None
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("frames_per_batch", [1, 60, 10_000])
def test_encoding_is_a_property_of_the_clip(codec: EntangleCodec, clips: Clips, frames_per_batch: int) -> None:
    alone = [codec.encode([clip])[0] for clip in clips]
    assert [c.shape for c in alone] == [(1, -(-len(clip) // 480)) for clip in clips]
    codec.frames_per_batch = frames_per_batch
    assert same(codec.encode(clips), alone)
    assert same(codec.encode(clips[::-1]), alone[::-1])


def test_lengths_from_a_frame_to_half_a_minute_share_a_batch(codec: EntangleCodec) -> None:
    rng = np.random.default_rng(1)
    clips = [(0.1 * rng.standard_normal(round(24_000 * s))).astype(np.float32) for s in (0.02, 0.5, 3.3, 11, 30)]
    codec.frames_per_batch = 100_000  # all in one padded batch
    together = codec.encode(clips)
    assert same(together, [codec.encode([clip])[0] for clip in clips])
    for clip, wave in zip(together, codec.decode(together), strict=True):
        np.testing.assert_allclose(codec.decode([clip])[0], wave, atol=1e-5)


def test_padded_frames_change_nothing(model: EntangleCodecForPreTraining) -> None:
    features, mask = torch.randn(2, 30, 128), (torch.arange(30) < torch.tensor([[30], [11]])).long()
    poisoned = torch.where(mask[..., None].bool(), features, torch.tensor(1e4))
    clean, dirty = (model.codec.encode(x, mask).audio_codes for x in (features, poisoned))
    assert torch.equal(clean[0], dirty[0])
    assert torch.equal(clean[1, :, :11], dirty[1, :, :11])


def test_decoding_is_a_property_of_the_codes(codec: EntangleCodec, clips: Clips) -> None:
    codes = codec.encode(clips)
    together = codec.decode(codes)
    for single, wave in zip(codes, together, strict=True):
        assert wave.shape == (480 * single.shape[1],)
        np.testing.assert_allclose(codec.decode([single])[0], wave, atol=1e-5)


def test_positions_are_of_frames(codec: EntangleCodec) -> None:
    # with rotary positions on a wrong axis two exchanged frames would only exchange their codes
    features = torch.randn(1, 20, 128)
    exchanged = features.clone()
    exchanged[0, [2, 17]] = features[0, [17, 2]]
    a, b = (codec.model.encode(x).latents[0] for x in (features, exchanged))
    assert (a[2] - b[17]).abs().max() > 1e-4


def test_save_and_load(codec: EntangleCodec, clips: Clips, tmp_path: Path) -> None:
    codec.save_pretrained(tmp_path)
    assert {p.suffix for p in tmp_path.iterdir()} == {".json", ".safetensors"}
    again = load_codec(tmp_path)
    codes = codec.encode(clips)
    assert again.fingerprint == codec.fingerprint
    assert same(again.encode(clips), codes)
    for a, b in zip(again.decode(codes), codec.decode(codes), strict=True):
        np.testing.assert_array_equal(a, b)
    assert isinstance(AutoConfig.from_pretrained(tmp_path), EntangleCodecConfig)
    assert AutoFeatureExtractor.from_pretrained(tmp_path).spec == codec.feature_extractor.spec
    assert isinstance(AutoModel.from_pretrained(tmp_path), EntangleCodecModel)


def test_bfloat16_changes_no_code(codec: EntangleCodec, clips: Clips, tmp_path: Path) -> None:
    codec.save_pretrained(tmp_path)
    half = EntangleCodecModel.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert half.decoder.out.weight.dtype == torch.bfloat16
    assert EntangleCodec(half).fingerprint == codec.fingerprint
    codes = codec.encode(clips)
    assert same(EntangleCodec(half).encode(clips), codes)
    assert all(np.isfinite(wave).all() for wave in EntangleCodec(half).decode(codes))


def test_a_checkpoint_that_lacks_weights_is_refused(codec: EntangleCodec, tmp_path: Path) -> None:
    codec.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))
    with pytest.raises(CheckpointError, match=r"encoder\.layers\.2"):
        EntangleCodec.from_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="holds no codec"):
        load_codec(tmp_path.parent)


def test_fingerprint_follows_what_decides_a_code(model: EntangleCodecForPreTraining) -> None:
    before = EntangleCodec(model.codec).fingerprint
    with torch.no_grad():
        model.codec.decoder.out.weight.add_(1)
    assert EntangleCodec(model.codec).fingerprint == before
    with torch.no_grad():
        model.codec.quantizer.codebook[0, 0] += 1e-3
    assert EntangleCodec(model.codec).fingerprint != before


def test_bad_input_is_told(codec: EntangleCodec) -> None:
    extract = codec.feature_extractor
    with pytest.raises(ValueError, match="sampling_rate=16000 given, 24000 needed"):
        extract(np.zeros(100, np.float32), sampling_rate=16_000)
    with pytest.raises(ValueError, match="mono"):
        extract([np.zeros((2, 100), np.float32)], sampling_rate=24_000)
    with pytest.raises(ValueError, match=r"shape \(1, T\)"):
        codec.decode([np.zeros((2, 3), np.int64)])
    with pytest.raises(ValueError, match=r"\[0, 64\), got 0…64"):
        codec.decode([np.array([[0, 64]])])
    codec.model.config.max_audio_seconds = 1.0
    with pytest.raises(ValueError, match="never chunks"):
        codec.encode([np.zeros(30_000, np.float32)])
    codec.model.vocoder = None
    with pytest.raises(ValueError, match="no vocoder"):
        codec.decode([np.zeros((1, 3), np.int64)])


def test_stage_one_gradients_reach_what_they_must(model: EntangleCodecForPreTraining) -> None:
    model.train()
    out = model(torch.randn(4, 20, 128), None, torch.randint(3, 60, (4, 6)), torch.full((4,), 6))
    out.loss.backward()
    torch.testing.assert_close(out.loss.detach(), out.flow_loss + out.contrastive_loss + out.vq_loss)  # eq. 8
    silent = {n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum()}
    # "add" would have no segment; the vocoder has its own training
    assert {n for n in silent if ".vocoder." not in n} == set()


def test_validation_losses_differ_by_the_model_alone(model: EntangleCodecForPreTraining) -> None:
    features = torch.randn(4, 20, 128)
    assert model.eval()(features).loss == model(features).loss
    assert model.train()(features).flow_loss != model(features).flow_loss


def test_contrastive_loss_is_clips() -> None:
    audio, text = torch.randn(2, 5, 16)
    logits = 10 * torch.cosine_similarity(audio[:, None], text[None], dim=-1)
    labels = torch.arange(5)
    expected = (
        torch.nn.functional.cross_entropy(logits, labels) + torch.nn.functional.cross_entropy(logits.T, labels)
    ) / 2
    torch.testing.assert_close(contrastive_loss(audio, text, torch.tensor(10.0).log()), expected)


def test_equal_captions_are_no_negatives() -> None:
    audio, text = torch.randn(1, 16).repeat(3, 1), torch.randn(1, 16).repeat(3, 1)
    assert contrastive_loss(audio, text, torch.tensor(2.0)).item() == pytest.approx(np.log(3), abs=1e-5)


@pytest.mark.parametrize("padded", [False, True])
def test_bf16_trains_as_float32_does(model: EntangleCodecForPreTraining, padded: bool) -> None:
    """Mixed precision gives the losses of float32 to the digits that bf16 has, and finite gradients."""
    model.eval()
    torch.manual_seed(1)
    mel, ids, lengths = torch.randn(6, 20, 128), torch.randint(3, 60, (6, 6)), torch.tensor([6, 4, 5, 6, 3, 6])
    ids[1] = ids[0]
    lengths[1] = lengths[0]  # equal captions
    mask = (torch.arange(20) < torch.tensor([20, 12, 20, 5, 20, 19])[:, None]).long() if padded else None
    exact = model(mel, mask, ids, lengths)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = model(mel, mask, ids, lengths)
    mixed.loss.backward()
    for name in ("flow_loss", "contrastive_loss", "vq_loss"):
        torch.testing.assert_close(mixed[name].float(), exact[name], rtol=0.05, atol=0.02)
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_captions_keep_their_end(tmp_path: Path, make_config: Callable[..., EntangleCodecConfig]) -> None:
    words = [
        "a",
        "dog",
        "barks",
        "twice",
        "while",
        "rain",
        "falls",
        "on",
        "the",
        "roof",
        "and",
        "a",
        "man",
        "says",
        "hello",
        "to",
        "the",
        "quiet",
        "crowd",
    ]
    captions = [" ".join(words[i:] + words[:i]) for i in range(len(words))]
    tokenizer = CaptionTokenizer.train(captions, 60, 8)
    tokenizer.save(tmp_path)
    out = CaptionTokenizer.load(tmp_path, 8)([captions[0], "dog"])
    assert out.input_ids.shape == (2, 8)
    assert out.truncated == 1
    ends = out.input_ids[torch.arange(2), out.lengths - 1]
    assert ends.tolist() == [2, 2]


def test_mel_settings_must_agree(
    model: EntangleCodecForPreTraining, make_config: Callable[..., EntangleCodecConfig]
) -> None:
    other = EntangleCodecModel(make_config(mel={"mean": -5.0, "std": 3.0}))
    with pytest.raises(ValueError, match=MelSpec(mean=-6.0, std=3.0).fingerprint):
        other.attach_vocoder(model.codec.vocoder)


@pytest.mark.parametrize("numbers", [{"hidden_size": 34}, {"conditioning": "both"}, {"codebook_size": "big"}])
def test_bad_numbers_are_told(make_config: Callable[..., EntangleCodecConfig], numbers: dict[str, object]) -> None:
    with pytest.raises(Exception, match=next(iter(numbers))):
        make_config(**numbers)
