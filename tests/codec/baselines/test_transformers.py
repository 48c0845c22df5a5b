"""Every baseline of Transformers behind the codec contract, on tiny random models of the real classes."""

import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from numpy.typing import NDArray

from alm.scoring.results import read_result
from codec.audio import write_audio
from codec.base import Codec
from codec.baselines.base import BaselineError
from codec.entangle import CheckpointError
from codec.zoo import BASELINES, load_codec

Clips = list[NDArray[np.float32]]


def same(left: list[Any], right: list[Any]) -> bool:
    return len(left) == len(right) and all(np.array_equal(a, b) for a, b in zip(left, right, strict=True))


def test_numbers_of_the_contract(name: str, tiny: Any, folder: Path) -> None:
    codec = load_codec(folder)
    assert isinstance(codec, Codec)
    assert (codec.sampling_rate, codec.num_codebooks, codec.codebook_size) == (tiny.rate, tiny.codebooks, 64)
    assert codec.frame_rate == pytest.approx(tiny.rate / tiny.hop)
    assert codec.tokens_per_second == pytest.approx(tiny.codebooks * tiny.rate / tiny.hop)


def test_codes_and_waveforms(name: str, tiny: Any, folder: Path, clips: Clips) -> None:
    codec = load_codec(folder)
    codes = codec.encode(clips)
    for clip, found in zip(clips, codes, strict=True):
        extra = (
            name == "xcodec2" and len(clip) % tiny.hop == 0
        )  # X-Codec2 adds a frame to whole frames, as the original does
        assert found.shape == (tiny.codebooks, -(-len(clip) // tiny.hop) + extra)
        assert found.dtype == np.int64
        assert found.min() >= 0
        assert found.max() < codec.codebook_size
    assert len(np.unique(np.concatenate(codes, axis=1))) > 8  # not the collapse of codebooks left at zero
    for found, wave in zip(codes, codec.decode(codes), strict=True):
        assert wave.dtype == np.float32
        assert wave.ndim == 1
        assert np.isfinite(wave).all()
        lost = found.shape[1] * tiny.hop - len(wave)  # DAC's odd strides lose samples at the edges
        assert 0 <= lost < tiny.hop
        assert lost == 0 or name == "dac"


def test_a_clip_has_its_codes_in_any_batch(folder: Path, clips: Clips) -> None:
    codec = load_codec(folder)
    codes = codec.encode(clips)
    assert same([codec.encode([clip])[0] for clip in clips], codes)
    assert same(codec.encode(clips[::-1])[::-1], codes)
    assert same([codec.decode([found])[0] for found in codes], codec.decode(codes))


def test_eval_reconstruction_takes_it(tiny: Any, folder: Path, clips: Clips, tmp_path: Path) -> None:
    """`python eval/reconstruction.py --codec FOLDER --audio DIR`, a bad file among the recordings."""
    for number, clip in enumerate(clips):
        write_audio(tmp_path / "audio" / f"{number}.wav", clip, tiny.rate)
    (tmp_path / "audio" / "bad.wav").write_bytes(b"no audio")
    flags = ["--codec", str(folder), "--audio", str(tmp_path / "audio"), "--max_missing", "0.5"]
    main = runpy.run_path(str(Path(__file__).parents[3] / "eval" / "reconstruction.py"))["main"]
    main([*flags, "--metrics", "log_mel_l1", "stoi", "utmos", "--output", str(tmp_path / "result.json")])
    result = read_result(tmp_path / "result.json")
    assert result.counts["items"] == len(clips) + 1 and result.counts["missing"] == 1
    assert result.scores["log_mel_l1"].n == len(clips)
    assert 0 < result.scores["codebook_use"].value <= 1
    assert "curl" in result.unavailable["utmos"]


def test_fewer_codebooks_are_the_first_ones(tiny: Any, folder: Path, clips: Clips) -> None:
    every = load_codec(folder)
    codes = every.encode(clips)
    for count in range(1, tiny.codebooks + 1):
        codec = load_codec(folder, num_codebooks=count)
        assert codec.num_codebooks == count
        assert same(codec.encode(clips), [found[:count] for found in codes])
        assert [len(wave) for wave in codec.decode([c[:count] for c in codes])] == [len(w) for w in every.decode(codes)]
        assert (codec.fingerprint == every.fingerprint) == (count == tiny.codebooks)
    for count in (0, tiny.codebooks + 1):
        with pytest.raises(BaselineError, match=f"num_codebooks is 1 to {tiny.codebooks}, got {count}"):
            load_codec(folder, num_codebooks=count)


def test_fingerprint_follows_what_decides_a_code(tiny: Any, folder: Path, tmp_path: Path) -> None:
    before = load_codec(folder).fingerprint
    assert load_codec(folder).fingerprint == before
    assert load_codec(tiny.save(tmp_path / "again")).fingerprint == before  # wherever the files are
    assert load_codec(tiny.save(tmp_path / "other", seed=1)).fingerprint != before
    codec: Any = load_codec(folder)
    with torch.no_grad():
        for weight in decoder(codec.model).parameters():
            weight.add_(1.0)
    assert codec.fingerprint == before
    codec = load_codec(folder)
    with torch.no_grad():
        next(encoder(codec.model).parameters()).add_(1e-3)
    assert codec.fingerprint != before


def decoder(model: Any) -> torch.nn.Module:
    names = ("decoder", "acoustic_decoder", "backbone")
    return next(getattr(model, name) for name in names if hasattr(model, name))


def encoder(model: Any) -> torch.nn.Module:
    names = ("encoder", "acoustic_encoder", "encoder_model")
    return next(getattr(model, name) for name in names if hasattr(model, name))


def test_saved_it_comes_back_with_its_codebooks(tiny: Any, folder: Path, tmp_path: Path, clips: Clips) -> None:
    codec: Any = load_codec(folder, num_codebooks=min(2, tiny.codebooks))
    codec.save_pretrained(tmp_path)
    again = load_codec(tmp_path)
    assert (again.num_codebooks, again.fingerprint) == (codec.num_codebooks, codec.fingerprint)
    assert same(again.encode(clips), codec.encode(clips))


def test_half_precision_on_disk_is_read_as_float32(folder: Path, tmp_path: Path, clips: Clips) -> None:
    codec: Any = load_codec(folder)
    codec.model.to(torch.bfloat16).save_pretrained(tmp_path)
    codec.feature_extractor.save_pretrained(tmp_path)
    again: Any = load_codec(tmp_path)
    assert {weight.dtype for weight in again.model.parameters()} == {torch.float32}
    assert all(np.isfinite(wave).all() for wave in again.decode(again.encode(clips)))


def test_codebook_vectors(name: str, tiny: Any, folder: Path) -> None:
    codec = load_codec(folder, num_codebooks=1)
    vectors = codec.codebook_vectors()
    assert vectors is not None
    assert (len(vectors), vectors.dtype) == (64, np.float32)
    assert len(np.unique(vectors, axis=0)) == 64
    every = load_codec(folder).codebook_vectors()
    assert every is not None
    assert len(every) == 64 * tiny.codebooks
    assert np.array_equal(every[:64], vectors)


def test_what_is_refused(folder: Path, tiny: Any, tmp_path: Path) -> None:
    codec = load_codec(folder)
    good = np.zeros((tiny.codebooks, 3), dtype=np.int64)
    for bad in (good[:, :0], good[0], np.zeros((tiny.codebooks + 1, 3), dtype=np.int64)):
        with pytest.raises(BaselineError, match="decodes codes"):
            codec.decode([bad])
    for code in (-1, 64):
        with pytest.raises(BaselineError, match="from 0 to 63"):
            codec.decode([good + code])
    for wave in (np.zeros(0, dtype=np.float32), np.zeros((2, 100), dtype=np.float32)):
        with pytest.raises(BaselineError, match="mono"):
            codec.encode([wave])


def test_missing_weights_are_refused(folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    codec: Any = load_codec(folder)
    codec.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    lost = next(name for name in sorted(weights) if name.startswith(("encoder", "acoustic_encoder")))
    del weights[lost]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="lacks 1 tensors"):
        load_codec(tmp_path)


def test_encodec_with_scales_beside_its_codes_is_refused(tmp_path: Path) -> None:
    config = transformers.EncodecConfig(num_filters=4, hidden_size=16, codebook_size=64, normalize=True)
    transformers.EncodecModel(config).save_pretrained(tmp_path)
    transformers.EncodecFeatureExtractor(sampling_rate=24_000).save_pretrained(tmp_path)
    with pytest.raises(BaselineError, match="encodec_24khz"):
        load_codec(tmp_path)


def test_bandwidths_of_encodec_give_the_codes_of_each_other(folder_of: Any, clips: Clips) -> None:
    """One codebook is kept from an encoding with two: it must be what every bandwidth begins with."""
    codec: Any = load_codec(folder_of("encodec"), num_codebooks=1)
    for clip in clips:
        wave = torch.from_numpy(clip)[None, None]
        with torch.inference_mode():
            for bandwidth in (0.9, 1.8):
                direct = codec.model.encode(wave, bandwidth=bandwidth).audio_codes[0, 0, :1].numpy()
                assert np.array_equal(direct, codec.encode([clip])[0])


GOLDEN = {name: entry for name, entry in BASELINES.items() if entry.hub_id is not None}


@pytest.mark.parametrize("golden", sorted(GOLDEN))
def test_real_weights_give_the_codes_of_the_class_called_directly(golden: str) -> None:
    """With the real weights in the Hub's cache: our codes are those that the model's documentation would get."""
    from huggingface_hub import try_to_load_from_cache

    hub_id = str(GOLDEN[golden].hub_id)
    if not isinstance(try_to_load_from_cache(hub_id, "model.safetensors"), str):
        pytest.skip(f"{hub_id} is not in the cache of the Hub; download it to run this test")
    wave = (0.2 * np.sin(np.arange(24_001) / 9) * np.random.default_rng(0).random(24_001)).astype(np.float32)
    count = GOLDEN[golden].paper[0]
    codec = load_codec(golden, num_codebooks=count)
    model = getattr(transformers, str(type(codec).model_class)).from_pretrained(hub_id, dtype=torch.float32).eval()  # type: ignore[attr-defined]
    extractor = transformers.AutoFeatureExtractor.from_pretrained(hub_id)
    inputs = dict(extractor(wave, sampling_rate=codec.sampling_rate, return_tensors="pt"))
    names = {"input_values"} | ({"input_features", "input_features_mask"} if golden == "xcodec2" else set())
    with torch.inference_mode():
        codes = model.encode(**{key: value for key, value in inputs.items() if key in names}).audio_codes
    codes = (codes[0] if codes.ndim == 4 else codes)[0, :count]
    assert np.array_equal(codec.encode([wave])[0], codes.numpy())
