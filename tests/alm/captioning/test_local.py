"""Captioning through real audio-language classes of Transformers, tiny and random."""

import json
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from alm.captioning.prompts import instruction
from alm.captioning.structure import parse
from alm.chat.backend import BackendError, ClipError, Turn
from alm.chat.local import LocalModel
from codec.data import read_clips

ROOT = Path(__file__).parents[3]
PARTS = runpy.run_path(str(ROOT / "tests" / "helpers" / "audio_models.py"))
MAKERS, SECONDS = PARTS["MAKERS"], PARTS["SECONDS"]
REPLY = json.dumps(
    {
        "speaker": "Nobody talks in it.",
        "environment": "It is a dry room.",
        "music": "There is no music.",
        "events": "A steady noise is heard.",
    }
)
TEXTS = [REPLY, *(instruction(kind, 1.0) for kind in ("auto", "speech", "music", "sound"))]


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
    _, processor = MAKERS["qwen2_audio"](tmp_path / "model", TEXTS)
    processor.tokenizer.save_pretrained(tmp_path / "text")
    (tmp_path / "text" / "config.json").write_text('{"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"]}')
    with pytest.raises(BackendError, match=r"cannot be loaded|takes no audio"):
        LocalModel(str(tmp_path / "text"))


def test_a_model_that_learned_to_answer_captions_a_corpus(clips: Path, tmp_path: Path, capsys: Any) -> None:
    model, processor = MAKERS["qwen2_audio"](tmp_path / "model", TEXTS)
    teach(model, processor, tmp_path / "model")
    main = runpy.run_path(str(ROOT / "recipes" / "caption_audio.py"))["main"]
    argv = ["--audio", str(clips), "--kind", "sound", "--limit", "2", "--retries", "0"]
    main([*argv, "--model", str(tmp_path / "model"), "--output", str(tmp_path / "captions.csv")])
    assert "2 captions in" in capsys.readouterr().out
    expected = parse(REPLY, "sound", 1.0).caption()
    assert [clip.caption for clip in read_clips(tmp_path / "captions.csv")] == [expected] * 2


def teach(model: Any, processor: Any, folder: Path) -> None:
    """Learn `REPLY` by heart, whatever is heard, and save."""
    rows = []
    for seconds in (0.3, 0.4):
        content = [
            {"type": "audio", "audio": noise(seconds)},
            {"type": "text", "text": instruction("sound", seconds)},
        ]
        rows.append(
            processor.apply_chat_template(
                [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=True, return_dict=True
            )
        )
    answer = torch.tensor([[*processor.tokenizer(REPLY).input_ids, processor.tokenizer.eos_token_id]])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for step in range(150):
        inputs = rows[step % 2]
        ids = torch.cat([torch.as_tensor(inputs["input_ids"]).reshape(1, -1), answer], 1)
        labels = torch.cat([torch.full((1, ids.shape[1] - answer.shape[1]), -100), answer], 1)
        loss = model(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            input_features=torch.as_tensor(inputs["input_features"]),
            feature_attention_mask=torch.as_tensor(inputs["feature_attention_mask"]),
            labels=labels,
        ).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if loss < 0.005:
            break
    model.save_pretrained(folder)
