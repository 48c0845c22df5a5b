"""UTMOS, speaker similarity and AudioBox on tiny random instances of the real Transformers classes."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, WavLMConfig, WavLMForXVector

from alm.scoring.sound.aesthetics import AUDIOBOX, WINDOW, Aesthetics
from alm.scoring.sound.base import MetricUnavailable
from alm.scoring.sound.ecapa import SpeakerVerifier
from alm.scoring.sound.naturalness import UTMOS, UTMOS_FILE, Utmos, listener
from alm.scoring.sound.speaker import SIM_GE2E, SIM_XVECTOR, Ge2e, load_verifier, similarity

TINY = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "conv_dim": [8] * 7,
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
}
LARGE = {"feat_extract_norm": "layer", "do_stable_layer_norm": True}
PUBLISHED = (
    ("masked_spec_embed", "mask_emb"),
    ("feature_projection.layer_norm", "layer_norm"),
    ("feature_projection.projection", "post_extract_proj"),
    ("encoder.pos_conv_embed.conv.parametrizations.weight.original0", "encoder.pos_conv.0.weight_g"),
    ("encoder.pos_conv_embed.conv.parametrizations.weight.original1", "encoder.pos_conv.0.weight_v"),
    ("encoder.pos_conv_embed.conv.bias", "encoder.pos_conv.0.bias"),
    ("attention.gru_rel_pos_linear", "self_attn.grep_linear"),
    ("attention.gru_rel_pos_const", "self_attn.grep_a"),
    ("attention.rel_attn_embed", "self_attn.relative_attention_bias"),
    ("feed_forward.intermediate_dense", "fc1"),
    ("feed_forward.output_dense", "fc2"),
)
"""Transformers' name → the published checkpoints' (their names were read off the released classes)."""


def published(state: dict[str, Any], own: str, prefix: str, conv_norm: str = "2") -> dict[str, Any]:
    """A state as the released checkpoint names it."""
    renamed = {}
    for name, value in state.items():
        if name.startswith(f"{own}."):
            name = name.removeprefix(f"{own}.")
            for ours, theirs in PUBLISHED:
                name = name.replace(ours, theirs)
            name = re.sub(r"conv_layers\.(\d)\.conv\.", r"conv_layers.\1.0.", name)
            name = re.sub(r"conv_layers\.(\d)\.layer_norm\.", rf"conv_layers.\1.{conv_norm}.", name)
            name = re.sub(r"(layers\.\d+)\.layer_norm\.", r"\1.self_attn_layer_norm.", name)
            name = prefix + re.sub(r"\.attention\.", ".self_attn.", name)
        renamed[name] = value
    return renamed


def shaken(model: Any) -> Any:
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def noise(samples: int, seed: int = 0) -> Any:
    return (0.1 * np.random.default_rng(seed).standard_normal(samples)).astype(np.float32)


def test_utmos_reads_what_speechmos_released(tmp_path: Path) -> None:
    sizes = {"embedding": 4, "recurrent": 8, "hidden": 8}
    model = shaken(Utmos(Wav2Vec2Config(**TINY), **sizes))
    state = published(model.state_dict(), "wav2vec2", "wav2vec2.")
    assert "wav2vec2.feature_extractor.conv_layers.0.2.weight" in state
    assert "wav2vec2.encoder.layers.0.self_attn_layer_norm.weight" in state
    other = Utmos(Wav2Vec2Config(**TINY), **sizes).eval()
    other.load_speechmos(state, "x")
    wave = torch.from_numpy(noise(8_000))[None]
    with torch.inference_mode():
        assert torch.equal(model(wave), other(wave))
        frames = model.wav2vec2(wave).last_hidden_state
        fixed = torch.cat([model.domain_emb, model.judge_emb], 1).expand(frames.shape[1], -1)
        by_hand = model.projection(model.blstm(torch.cat([frames[0], fixed], 1)[None])[0]).mean() * 2 + 3
    assert float(model(wave)) == pytest.approx(float(by_hand), abs=1e-5)
    assert np.isnan(listener(model, "utmos")(None, noise(100))["utmos"])
    with pytest.raises(MetricUnavailable, match="lacks"):
        other.load_speechmos({k: v for k, v in state.items() if "fc1" not in k}, "x")
    torch.save(state, tmp_path / UTMOS_FILE)
    assert UTMOS.find(str(tmp_path)).label.startswith(f"{UTMOS_FILE}, sha256 ")
    with pytest.raises((MetricUnavailable, RuntimeError)):  # not of the real size
        UTMOS.load(UTMOS.find(str(tmp_path)), "cpu")


def test_the_verifier_reads_what_unispeech_released() -> None:
    config = WavLMConfig(**TINY, **LARGE)
    model = shaken(SpeakerVerifier(config, channels=16, pooled=24, embedding=8))
    state = published(model.state_dict(), "wavlm", "feature_extract.model.", conv_norm="2.1")
    assert "feature_extract.model.feature_extractor.conv_layers.1.2.1.weight" in state
    state["loss_calculator.projection.weight"] = torch.zeros(2, 2)
    other = load_verifier(SpeakerVerifier(config, channels=16, pooled=24, embedding=8), state, "x")
    wave = torch.from_numpy(noise(16_000))[None]
    with torch.inference_mode():
        assert torch.equal(model(wave), other(wave))
        assert torch.allclose(model(wave), model(3 * wave + 0.1), atol=1e-3)  # standardised
    measure = similarity("sim", other)
    assert measure(noise(16_000), noise(16_000))["sim"] == pytest.approx(1, abs=1e-5)
    assert measure(noise(16_000), noise(16_000, 1))["sim"] < 1
    assert np.isnan(measure(noise(4_000), noise(4_000))["sim"])
    assert np.isnan(measure(noise(16_000), 0 * noise(16_000))["sim"])
    with pytest.raises(MetricUnavailable, match="besides"):
        load_verifier(other, state | {"stray": torch.zeros(1)}, "x")


def test_the_verifier_mixes_in_the_normed_last_state() -> None:
    model = shaken(SpeakerVerifier(WavLMConfig(**TINY, **LARGE), channels=16, pooled=24, embedding=8))
    wave = torch.from_numpy(noise(16_000))[None]
    with torch.inference_mode():
        model.feature_weight.copy_(torch.tensor([0.0, 0.0, 60.0]))  # the last state alone
        before = model(wave)
        model.wavlm.encoder.layer_norm = torch.nn.Identity()
        assert not torch.allclose(before, model(wave), atol=1e-3)


def test_x_vectors_through_transformers(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = WavLMConfig(**TINY, tdnn_dim=[8] * 5, xvector_output_dim=8, num_labels=2)
    fresh = WavLMForXVector(config)
    for part in (fresh.projector, fresh.tdnn, fresh.feature_extractor):
        for weight in part.parameters():  # as initialised, every clip's embedding is about 0
            torch.nn.init.normal_(weight, std=0.5 if weight.ndim > 1 else 0.0)
    fresh.save_pretrained(tmp_path)
    Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(tmp_path)
    found = SIM_XVECTOR.find(str(tmp_path))
    assert "model.safetensors, sha256" in found.label
    measure = SIM_XVECTOR.load(found, "cpu")
    wave = noise(16_000)
    assert measure(wave, wave)["sim_xvector"] == pytest.approx(1, abs=1e-5)
    assert measure(wave, 2 * wave)["sim_xvector"] == pytest.approx(1, abs=1e-3)  # do_normalize of the folder is heeded
    other = 0.3 * np.sin(np.arange(16_000) / 20).astype(np.float32)
    model = WavLMForXVector.from_pretrained(tmp_path).eval()
    with torch.inference_mode():
        first, second = (
            model(torch.from_numpy((x - x.mean()) / np.sqrt(x.var() + 1e-7))[None]).embeddings[0] for x in (wave, other)
        )
    by_hand = float(first @ second / first.norm() / second.norm())
    assert by_hand < 1 - 1e-6 and measure(wave, other)["sim_xvector"] == pytest.approx(by_hand, abs=1e-5)
    with pytest.raises(MetricUnavailable, match="holds no model"):
        SIM_XVECTOR.find(str(tmp_path / "none"))


def test_ge2e_pieces(tmp_path: Path) -> None:
    model = shaken(Ge2e())
    torch.save({"model_state": model.state_dict() | {"similarity_weight": torch.ones(1)}}, tmp_path / "pretrained.pt")
    measure = (
        SIM_GE2E.load(SIM_GE2E.find(None)._replace(path=tmp_path), "cpu")
        if _has_resemblyzer()
        else similarity("sim_ge2e", model)
    )
    for samples in (9_000, 25_600, 60_000):
        assert measure(noise(samples), noise(samples))["sim_ge2e"] == pytest.approx(1, abs=1e-5)
        embedding = model(torch.from_numpy(noise(samples))[None])
        assert embedding.shape == (256,) and float(embedding.norm()) == pytest.approx(1, abs=1e-5)


def _has_resemblyzer() -> bool:
    import importlib.util

    return importlib.util.find_spec("resemblyzer") is not None


@pytest.fixture
def audiobox(tmp_path: Path) -> tuple[Aesthetics, Path]:
    """A tiny released folder, and the model that it was written from."""
    settings = {
        "proj_num_layer": 2,
        "proj_ln": True,
        "normalize_embed": True,
        "target_transform": {axis: {"mean": 5.0 + i, "std": 1.5} for i, axis in enumerate(("CE", "CU", "PC", "PQ"))},
    }
    model = shaken(Aesthetics(WavLMConfig(**TINY), settings))
    save_file(published(model.state_dict(), "wavlm", "wavlm_model."), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(settings | {"wavlm": TINY}))
    return model, tmp_path


def test_audiobox_reads_its_release(audiobox: tuple[Aesthetics, Path]) -> None:
    model, folder = audiobox
    measure = AUDIOBOX.load(AUDIOBOX.find(str(folder)), "cpu")
    wave = noise(20_000)
    values = measure(None, wave)
    assert set(values) == {"audiobox_ce", "audiobox_cu", "audiobox_pc", "audiobox_pq"} == set(AUDIOBOX.scores)
    assert values["audiobox_pq"] == pytest.approx(model.score(torch.from_numpy(wave))["PQ"], abs=1e-5)


def test_audiobox_weighs_windows_by_their_sound(audiobox: tuple[Aesthetics, Path]) -> None:
    model, _ = audiobox
    wave = torch.from_numpy(noise(WINDOW + 40_000))
    whole, first, rest = model.score(wave), model.score(wave[:WINDOW]), model.score(wave[WINDOW:])
    share = WINDOW / len(wave)
    for axis in whole:
        assert whole[axis] == pytest.approx(share * first[axis] + (1 - share) * rest[axis], abs=1e-4)


def test_audiobox_masks_what_was_filled_up(audiobox: tuple[Aesthetics, Path]) -> None:
    model, _ = audiobox
    windows = torch.zeros(2, 32_000)
    windows[:, :16_000] = torch.from_numpy(noise(16_000))
    windows[1, 24_000:] = 1e-3 * torch.from_numpy(noise(8_000, 3))  # sound in frames that do not count
    with torch.inference_mode():
        scores = model(windows, torch.tensor([16_000, 16_000]))
        free = model(windows, torch.tensor([16_000, 32_000]))
    for axis in scores:
        # the convolutions' group norm sees the whole window, as in the release; attention and mean do not
        assert abs(float(scores[axis][0] - scores[axis][1])) < abs(float(free[axis][0] - free[axis][1])) + 1e-6
