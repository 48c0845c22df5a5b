"""A tiny model that has learned to answer in text and in audio, saved once for all engines, and what Transformers generates from it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from alm.checkpoint import LoadedCheckpoint, load_checkpoint, save_checkpoint
from alm.data.example import Message
from alm.processing import AudioLanguageProcessor
from alm.serving.messages import as_text

DOG, BELL = np.array([[3, 17, 40, 9, 22, 60]]), np.array([[51, 8, 8, 33, 14, 2, 63]])


def _audio(codes: Any) -> dict[str, Any]:
    return {"type": "audio", "codes": codes}


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


CONVERSATIONS: dict[str, list[Message]] = {
    "audio to text": [
        {"role": "user", "content": [_audio(DOG), _text("What sound is heard?")]},
        {"role": "assistant", "content": [_text("a dog barks twice")]},
    ],
    "text to audio": [
        {"role": "user", "content": [_text("Ring a bell.")]},
        {"role": "assistant", "content": [_audio(BELL)]},
    ],
    "audio to audio": [
        {"role": "system", "content": [_text("Zürich, 東京 😀")]},
        {"role": "user", "content": [_text("First:"), _audio(BELL), _text("\nthen"), _audio(DOG)]},
        {"role": "assistant", "content": [_text("then a dog "), _audio(DOG[:, ::-1].copy()), _text("café")]},
    ],
    "text to text": [
        {"role": "user", "content": [_text("What is heard?")]},
        {"role": "assistant", "content": [_text("nothing")]},
    ],
}


@dataclass
class Served:
    """A saved checkpoint; for each prompt its text forms and the ids that greedy decoding gives, the stop token left out."""

    folder: Path
    processor: AudioLanguageProcessor
    prompts: dict[str, Any]
    replies: dict[str, list[int]]


_SERVED: dict[str, Served] = {}


@pytest.fixture
def served(make_language_model: Callable[..., LoadedCheckpoint], tmp_path_factory: pytest.TempPathFactory) -> Served:
    """Made once a session: training takes two seconds."""
    if not _SERVED:
        model, processor = make_language_model(head_dim=32)
        _learn(model, processor)
        folder = tmp_path_factory.mktemp("served")
        save_checkpoint(model, processor, folder)
        _SERVED["it"] = _generate(folder)
    return _SERVED["it"]


def _learn(model: Any, processor: AudioLanguageProcessor) -> None:
    rows = [processor.training_ids(messages) for messages in CONVERSATIONS.values()]
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(60):
        for row in rows:
            loss = model(torch.tensor([row.input_ids]), labels=torch.tensor([row.labels])).loss
            loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def _generate(folder: Path) -> Served:
    model, processor = load_checkpoint(folder)
    prompts = {name: as_text(messages[:-1], processor) for name, messages in CONVERSATIONS.items()}
    replies = {}
    for name, prompt in prompts.items():
        ids = torch.tensor([prompt.ids])
        made = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=24, do_sample=False)
        reply = made[0, ids.shape[1] :].tolist()
        replies[name] = (
            reply[: reply.index(processor.vocabulary.stop_id)] if processor.vocabulary.stop_id in reply else reply
        )
    return Served(folder, processor, prompts, replies)
