"""Other people's models as systems, through tiny random instances of their real classes."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from alm.chat.backend import BackendError
from alm.chat.local import LocalModel
from alm.data.example import DataError
from alm.scoring.systems.base import ChoiceScorer, ChoiceScores, GeneratedText, PartialListener, Refused, Request
from alm.scoring.systems.local import LocalSystem
from codec.audio import write_audio

CHOICES = ("a dog", "a bell", "nothing of it")
FAMILIES = ["qwen2_audio", "audio_flamingo_3"]


@pytest.fixture
def clips(tmp_path: Path) -> list[Path]:
    generator = np.random.default_rng(0)
    paths = [tmp_path / f"{number}.wav" for number in range(4)]
    for path, seconds in zip(paths, (0.4, 1.1, 1.7, 0.8), strict=True):
        write_audio(path, generator.normal(0, 0.2, int(24_000 * seconds)).astype(np.float32), 24_000)
    return paths


@pytest.fixture(params=FAMILIES)
def system(request: pytest.FixtureRequest, tiny_listeners: dict[str, Path]) -> LocalSystem:
    return LocalSystem(LocalModel(str(tiny_listeners[request.param])))


def requests(clips: list[Path]) -> list[Request]:
    return [
        Request(f"Which sound{' is heard' * number}?", clip, CHOICES)
        for number, clip in enumerate([*clips, None, clips[0], None])
    ]


def test_they_are_systems_that_score_and_say_what_they_heard(system: LocalSystem) -> None:
    assert isinstance(system, ChoiceScorer) and isinstance(system, PartialListener)


def test_replies_are_the_same_alone_and_in_any_batch(system: LocalSystem, clips: list[Path]) -> None:
    asked = requests(clips)
    together, scored = system.answer(asked, 6), system.score(asked)
    for one, reply, scores in zip(asked, together, scored, strict=True):
        assert isinstance(reply, GeneratedText) and system.answer([one], 6) == [reply]
        assert system.score([one]) == [scores]
    texts = [reply.text for reply in together if isinstance(reply, GeneratedText)]
    assert len(set(texts)) > len(texts) // 2  # what is read and heard decides what is said


def test_another_clip_and_none_change_the_scores(system: LocalSystem, clips: list[Path]) -> None:
    sums = [scores.sums for scores in system.score([Request("Which?", clip, CHOICES) for clip in (*clips[:2], None)])]
    assert len(set(sums)) == 3


@torch.no_grad()
def reference(system: LocalSystem, request: Request, closed: bool) -> list[float]:
    """One forward of the whole conversation per choice, as the processor writes it, without a cache or padding."""
    model, processor = system.model.model, system.model.processor
    found = []
    for choice in request.choices:
        clip = system._conversation(request).waveform
        content = [] if clip is None else [{"type": "audio", "audio": clip}]
        asked = [{"role": "user", "content": [*content, {"type": "text", "text": request.text}]}]
        said = [{"role": "assistant", "content": [{"type": "text", "text": choice}]}]
        form: dict[str, Any] = {"tokenize": True, "return_dict": True, "return_tensors": "pt"}
        start = processor.apply_chat_template(asked, add_generation_prompt=True, **form)["input_ids"].shape[1]
        whole = processor.apply_chat_template([*asked, *said], **form)
        logits = model(**whole, use_cache=False).logits[0].float().log_softmax(-1)
        ids = whole["input_ids"][0]
        end = start + ids[start:].tolist().index(processor.tokenizer.eos_token_id) + closed
        found.append(sum(float(logits[place - 1, ids[place]]) for place in range(start, end)))
    return found


@pytest.mark.parametrize("closed", [True, False])
def test_scores_equal_whole_forwards(system: LocalSystem, clips: list[Path], closed: bool) -> None:
    for clip in (clips[1], None):
        request = Request("Which sound is heard?", clip, CHOICES, closed)
        (scores,) = system.score([request])
        assert isinstance(scores, ChoiceScores)
        assert scores.sums == pytest.approx(reference(system, request, closed), abs=1e-4)
    longer = system.score([Request("Which?", None, CHOICES)])[0].tokens
    shorter = system.score([Request("Which?", None, CHOICES, closed=False)])[0].tokens
    assert [a - b for a, b in zip(longer, shorter, strict=True)] == [1, 1, 1]


@pytest.mark.parametrize(("family", "window"), [("qwen2_audio", 2.0), ("audio_flamingo_3", 4.0)])
def test_of_a_longer_clip_the_beginning_is_heard_and_said_so(
    family: str, window: float, tiny_listeners: dict[str, Path], tmp_path: Path
) -> None:
    system = LocalSystem(LocalModel(str(tiny_listeners[family])))
    long, same, other = (tmp_path / f"{name}.wav" for name in ("long", "same", "other"))
    samples = np.random.default_rng(0).normal(0, 0.2, int(16_000 * (window + 1))).astype(np.float32)
    beginning = int(16_000 * window)
    write_audio(long, samples, 16_000)
    write_audio(same, samples[:beginning], 16_000)
    write_audio(other, np.concatenate([samples[: beginning // 2], -samples[: beginning // 2]]), 16_000)
    replies = system.answer([Request("Which?", clip) for clip in (long, same, other)], 6)
    assert replies[0] == replies[1]
    scores = system.score([Request("Which?", clip, CHOICES) for clip in (long, same, other)])
    assert scores[0] == scores[1] != scores[2]
    assert [system.heard_seconds(clip) for clip in (long, same, other)] == [pytest.approx(window, abs=0.02), None, None]


def test_sampling_and_penalties_of_the_checkpoint_do_not_matter(
    tiny_listeners: dict[str, Path], clips: list[Path], tmp_path: Path
) -> None:
    before = LocalSystem(LocalModel(str(tiny_listeners["qwen2_audio"])))
    folder = tmp_path / "sampling"
    shutil.copytree(tiny_listeners["qwen2_audio"], folder)
    settings = before.model.model.generation_config.to_dict()
    config = type(before.model.model.generation_config)(
        **{
            **settings,
            "do_sample": True,
            "temperature": 5.0,
            "top_k": 3,
            "repetition_penalty": 9.0,
            "max_new_tokens": 1,
        }
    )
    config.save_pretrained(folder)
    after = LocalSystem(LocalModel(str(folder)))
    asked = requests(clips)
    assert after.answer(asked, 6) == before.answer(asked, 6)
    assert after.identity == before.identity  # a copy elsewhere is the same system


def test_identity_changes_with_weights_and_template(tiny_listeners: dict[str, Path]) -> None:
    model = LocalModel(str(tiny_listeners["qwen2_audio"]))
    before = LocalSystem(model).identity
    model.processor.chat_template += " "
    assert {n for n, value in LocalSystem(model).identity.items() if value != before[n]} == {"chat_template"}
    other = LocalModel(str(tiny_listeners["qwen2_audio"]), dtype="bfloat16")
    changed = {n for n, value in LocalSystem(other).identity.items() if value != before[n]}
    assert {"weights", "dtype"} <= changed
    assert before["class"] == "Qwen2AudioForConditionalGeneration" and before["processor"] == "Qwen2AudioProcessor"


def test_what_cannot_be_answered_is_refused_with_the_reason(system: LocalSystem, clips: list[Path]) -> None:
    clips[1].write_text("not audio")
    write_audio(clips[2], np.zeros(800, np.float32), 16_000)
    asked = [Request("Which?", clip, CHOICES) for clip in clips] + [Request("Which? " * 900, clips[0], CHOICES)]
    for replies in (system.answer(asked, 2), system.score(asked)):
        reasons = [reply.reason if isinstance(reply, Refused) else None for reply in replies]
        assert [reason is None for reason in reasons] == [True, False, False, True, False]
        assert clips[1].name in reasons[1] and "0.050 s" in reasons[2] and "the model takes 2048" in reasons[4]


def test_a_template_that_opens_the_answer_otherwise_has_no_likelihoods(system: LocalSystem) -> None:
    opened = system.model.processor.chat_template.replace("<|im_start|>assistant\n", "<|im_start|>assistant\n<think>")
    system.model.processor.chat_template = opened
    assert isinstance(system.answer([Request("Which?")], 2)[0], GeneratedText)
    with pytest.raises(DataError, match="--no_loglikelihood --no_letter"):
        system.score([Request("Which?", None, CHOICES)])


def test_weights_that_are_not_there_are_not_made_up(tiny_listeners: dict[str, Path], tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "part"
    shutil.copytree(tiny_listeners["qwen2_audio"], folder)
    weights = load_file(folder / "model.safetensors")
    name = next(name for name in weights if "projector" in name)
    del weights[name]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(BackendError, match=r"lacks 1 tensors \(.*projector"):
        LocalModel(str(folder))
