"""Qwen2.5-Omni and Qwen3-Omni as systems: the Thinker alone, out of a whole checkpoint. Their processors need torchvision.

`make test-omni` runs this file beside torchvision.
"""

import runpy
from pathlib import Path

import numpy as np
import pytest
import torch

from alm.chat.local import LocalModel
from alm.scoring.systems.base import ChoiceScores, GeneratedText, Request
from alm.scoring.systems.local import LocalSystem
from codec.audio import write_audio

pytest.importorskip("torchvision", reason="make test-omni")
PARTS = runpy.run_path(str(Path(__file__).parents[2] / "helpers" / "audio_models.py"))
CHOICES = ("a dog", "a bell", "nothing of it")


@pytest.fixture(scope="module", params=["2_5", "3"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("omni")
    PARTS["make_qwen_omni"](made, request.param, scale=4.0)
    return made


@pytest.fixture
def requests(tmp_path: Path) -> list[Request]:
    generator = np.random.default_rng(0)
    paths = [tmp_path / f"{number}.wav" for number in range(3)]
    for path, seconds in zip(paths, (0.4, 2.7, 1.1), strict=True):
        write_audio(path, generator.normal(0, 0.2, int(16_000 * seconds)).astype(np.float32), 16_000)
    return [Request(f"Which sound{' is heard' * n}?", clip, CHOICES) for n, clip in enumerate([*paths, None])]


def test_only_the_thinker_is_loaded_and_it_alone_answers(folder: Path, requests: list[Request]) -> None:
    system = LocalSystem(LocalModel(str(folder)))
    assert "ThinkerForConditionalGeneration" in system.identity["class"]
    assert not any(name.startswith("talker") for name, _ in system.model.model.named_parameters())
    together, scored = system.answer(requests, 6), system.score(requests)
    for one, reply, scores in zip(requests, together, scored, strict=True):
        assert isinstance(reply, GeneratedText) and isinstance(scores, ChoiceScores)
        assert system.answer([one], 6) == [reply]
        assert system.score([one])[0].sums == pytest.approx(scores.sums, abs=1e-5)
    assert len({scores.sums for scores in scored if isinstance(scores, ChoiceScores)}) == len(requests)


@torch.no_grad()
def test_scores_equal_whole_forwards(folder: Path, requests: list[Request]) -> None:
    system = LocalSystem(LocalModel(str(folder)))
    model, processor = system.model.model, system.model.processor
    form = {"tokenize": True, "return_dict": True, "return_tensors": "pt"}
    for request in requests[1:]:
        (scores,) = system.score([request])
        clip = system._conversation(request).waveform
        content = [] if clip is None else [{"type": "audio", "audio": clip}]
        asked = [{"role": "user", "content": [*content, {"type": "text", "text": request.text}]}]
        start = processor.apply_chat_template(asked, add_generation_prompt=True, **form)["input_ids"].shape[1]
        for choice, found in zip(CHOICES, scores.sums, strict=True):
            said = [{"role": "assistant", "content": [{"type": "text", "text": choice}]}]
            whole = processor.apply_chat_template([*asked, *said], **form)
            logits = model(**whole, use_cache=False).logits[0].float().log_softmax(-1)
            ids = whole["input_ids"][0]
            end = start + ids[start:].tolist().index(processor.tokenizer.eos_token_id) + 1
            expected = sum(float(logits[place - 1, ids[place]]) for place in range(start, end))
            assert found == pytest.approx(expected, abs=1e-4)


def test_how_much_of_a_long_clip_is_heard_is_the_processors_own_affair(folder: Path, tmp_path: Path) -> None:
    system = LocalSystem(LocalModel(str(folder)))
    window = PARTS["OMNI_SECONDS"]
    write_audio(tmp_path / "long.wav", np.random.default_rng(0).normal(0, 0.2, 16_000 * (window + 5)), 16_000)
    (reply,) = system.answer([Request("Which?", tmp_path / "long.wav")], 2)
    assert isinstance(reply, GeneratedText)
    cut = "Qwen2_5" in system.identity["class"]  # Qwen3-Omni's processor switches its extractor's window off
    assert system.heard_seconds(tmp_path / "long.wav") == (pytest.approx(window) if cut else None)
