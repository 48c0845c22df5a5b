"""CLAP and the classifier on tiny random instances of the real Transformers classes."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    ASTFeatureExtractor,
    ASTForAudioClassification,
    ClapFeatureExtractor,
    ClapModel,
    PreTrainedTokenizerFast,
)

from alm.scoring.sound.base import MetricUnavailable, middle
from alm.scoring.sound.clap import find_clap, load_clap
from alm.scoring.sound.classifier import Classifier, find_classifier, load_classifier

RATE = 48_000


def noise(samples: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).uniform(-1, 1, samples).astype(np.float32)


def test_the_middle() -> None:
    clip = np.arange(7, dtype=np.float32)
    assert middle(clip, 3).tolist() == [2, 3, 4] and middle(clip, 7) is not None
    assert middle(clip, 9).tolist() == clip.tolist() and middle(clip, 4).tolist() == [1, 2, 3, 4]


def test_the_score_is_the_cosine_of_transformers_own_embeddings(tiny_clap: Path) -> None:
    clap = load_clap(find_clap(str(tiny_clap)))
    model = ClapModel.from_pretrained(tiny_clap).eval()
    extractor = ClapFeatureExtractor.from_pretrained(tiny_clap)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(tiny_clap)
    assert clap.sampling_rate == RATE
    for wave in (noise(RATE), noise(10 * RATE)):
        features = extractor(wave, sampling_rate=RATE, return_tensors="pt")
        with torch.inference_mode():
            output = model(**features, **tokenizer(["a dog barks"], return_tensors="pt"))
        expected = float((output.audio_embeds * output.text_embeds).sum())
        assert clap.similarity(wave, "a dog barks") == pytest.approx(expected, abs=1e-5)
    assert np.linalg.norm(clap.sound(noise(RATE))) == pytest.approx(1, abs=1e-6)
    assert clap.similarity(noise(RATE), "rain") != clap.similarity(noise(RATE), "a dog barks")


@pytest.mark.parametrize("form", ["tiny_clap", "fused_clap"])
def test_a_long_clip_has_one_score_that_of_its_middle(form: str, request: pytest.FixtureRequest) -> None:
    clap = load_clap(find_clap(str(request.getfixturevalue(form))))
    long = noise(13 * RATE)
    np.random.seed(1)  # the extractor draws from the global state
    first = clap.sound(long)
    np.random.seed(2)
    assert np.array_equal(first, clap.sound(long))
    assert np.array_equal(first, clap.sound(long[3 * RATE // 2 : 3 * RATE // 2 + 10 * RATE]))
    assert not np.array_equal(first, clap.sound(long[: 10 * RATE]))


def test_the_classifier_hears_what_transformers_does(tiny_classifier: Path) -> None:
    classifier = load_classifier(find_classifier(str(tiny_classifier)))
    model = ASTForAudioClassification.from_pretrained(tiny_classifier).eval()
    extractor = ASTFeatureExtractor.from_pretrained(tiny_classifier)
    wave = noise(16_000)
    with torch.inference_mode():
        inputs = extractor(wave, sampling_rate=16_000, return_tensors="pt")
        expected = model(**inputs).logits[0]
        pooled = model.audio_spectrogram_transformer(**inputs).pooler_output[0]
    heard = classifier.hear(wave)
    assert torch.allclose(torch.from_numpy(heard.logits), expected, atol=1e-6)
    assert torch.allclose(torch.from_numpy(heard.embedding), pooled, atol=1e-6)
    long = noise(12 * 16_000)
    assert np.array_equal(classifier.hear(long).logits, classifier.hear(long[16_000 : 11 * 16_000]).logits)
    assert np.isfinite(classifier.hear(wave[:10]).logits).all()  # below one window


def test_models_are_told_by_what_is_in_their_folder(tiny_clap: Path, tmp_path: Path) -> None:
    copy = tmp_path / tiny_clap.name
    shutil.copytree(tiny_clap, copy)
    label = find_clap(str(copy)).label
    assert label == find_clap(str(tiny_clap)).label and "sha256" in label
    model = ClapModel.from_pretrained(copy)
    with torch.no_grad():
        model.logit_scale_a.add_(1)
    model.save_pretrained(copy)
    assert find_clap(str(copy)).label != label


def test_what_is_absent_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(MetricUnavailable, match="hf download nobody/clap"):
        find_clap("nobody/clap")
    with pytest.raises(MetricUnavailable, match="--classifier FOLDER"):
        find_classifier("nobody/ast")
    with pytest.raises(MetricUnavailable, match=r"without config\.json"):
        find_clap(str(tmp_path))
    with pytest.raises(MetricUnavailable, match="no head `classifier`"):
        Classifier(torch.nn.Linear(1, 1), type("Extractor", (), {"sampling_rate": 16_000}))
