"""A corpus captioned by a real, tiny audio-language model that has learned one reply by heart."""

import json
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import torch

from alm.captioning.prompts import instruction
from alm.captioning.structure import parse
from codec.data import read_clips

ROOT = Path(__file__).parents[3]
MAKERS = runpy.run_path(str(ROOT / "tests" / "helpers" / "audio_models.py"))["MAKERS"]
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
