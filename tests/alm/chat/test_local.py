"""Other people's models, asked about clips through the real classes of Transformers, tiny and random."""

import runpy
from pathlib import Path

import numpy as np
import pytest

from alm.chat.backend import BackendError, ClipError, Turn
from alm.chat.local import LocalModel

ROOT = Path(__file__).parents[3]
PARTS = runpy.run_path(str(ROOT / "tests" / "helpers" / "audio_models.py"))
MAKERS, SECONDS = PARTS["MAKERS"], PARTS["SECONDS"]


def noise(seconds: float) -> np.ndarray:
    return np.random.default_rng(0).uniform(-0.5, 0.5, round(16_000 * seconds)).astype(np.float32)


@pytest.mark.parametrize("name", MAKERS)
def test_a_tiny_model_hears_generates_and_is_decoded(name: str, tmp_path: Path) -> None:
    saved, _ = MAKERS[name](tmp_path)
    model = LocalModel(str(tmp_path), max_new_tokens=12)
    assert type(model.model) is type(saved) and model.sampling_rate == 16_000
    assert model.settings["class"] == type(saved).__name__ and len(model.weights) == 16
    asked = [Turn("user", "What is it?")]
    reply = model.ask(noise(1.0), asked)
    assert reply == model.ask(noise(1.0), asked)  # greedy
    assert 1 <= (reply.answer_tokens or 0) <= 12 and reply.cut == (reply.answer_tokens == 12)
    assert "<|im_start|>" not in reply.text
    longer = model.ask(noise(1.0), [*asked, Turn("assistant", "A dog."), Turn("user", "Again.")])
    assert (longer.prompt_tokens or 0) > (reply.prompt_tokens or 0)
    # each 40 ms are one token of the prompt
    more = model.ask(noise(1.4), asked)
    assert (more.prompt_tokens or 0) - (reply.prompt_tokens or 0) == 10


@pytest.mark.parametrize(("name", "limit"), [("qwen2_audio", SECONDS), ("audio_flamingo_3", 2 * SECONDS)])
def test_a_clip_that_would_be_cut_without_a_word_is_refused(name: str, limit: int, tmp_path: Path) -> None:
    MAKERS[name](tmp_path)
    model = LocalModel(str(tmp_path), max_new_tokens=2)
    model.ask(noise(limit), [Turn("user", "What is it?")])
    with pytest.raises(ClipError, match=rf"{limit + 0.5} s, the model hears {limit}.0 s of it; --max_seconds {limit} "):
        model.ask(noise(limit + 0.5), [Turn("user", "What is it?")])


def test_a_model_without_ears_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="cannot be loaded as an audio-language model"):
        LocalModel(str(tmp_path))
    _, processor = MAKERS["qwen2_audio"](tmp_path / "model")
    processor.tokenizer.save_pretrained(tmp_path / "text")
    (tmp_path / "text" / "config.json").write_text('{"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"]}')
    with pytest.raises(BackendError, match=r"cannot be loaded|takes no audio"):
        LocalModel(str(tmp_path / "text"))
