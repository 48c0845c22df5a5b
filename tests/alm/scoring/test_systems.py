"""Our checkpoint as a system: one implementation of the protocol that every system answers through."""

from pathlib import Path

import numpy as np
import pytest
import torch

from alm.checkpoint import LoadedCheckpoint
from alm.scoring.systems.base import ChoiceScorer, ChoiceScores, GeneratedText, Refused, Request, System
from alm.scoring.systems.checkpoint import CheckpointSystem
from codec.audio import write_audio


@pytest.fixture
def clips(tmp_path: Path) -> list[Path]:
    generator = np.random.default_rng(0)
    paths = [tmp_path / f"{number}.wav" for number in range(3)]
    for number, path in enumerate(paths):
        write_audio(path, generator.uniform(-0.5, 0.5, 3_000 * (number + 1)).astype(np.float32), 24_000)
    return paths


def test_it_is_a_system_that_scores_choices(tiny: LoadedCheckpoint) -> None:
    system: System = CheckpointSystem(*tiny)
    assert isinstance(system, ChoiceScorer)


def test_replies_are_the_same_alone_and_in_any_batch(tiny: LoadedCheckpoint, clips: list[Path]) -> None:
    requests = [
        Request(f"Which sound{'?' * number}", clip, ("a dog", "a cat", "rain on a roof"))
        for number, clip in enumerate([*clips, None, clips[0]])
    ]
    together = CheckpointSystem(*tiny)
    said, scored = together.answer(requests, 5), together.score(requests)
    for request, reply, scores in zip(requests, said, scored, strict=True):
        alone = CheckpointSystem(*tiny)
        assert alone.answer([request], 5) == [reply] and isinstance(reply, GeneratedText)
        (single,) = alone.score([request])
        assert isinstance(single, ChoiceScores) and isinstance(scores, ChoiceScores)
        assert single.sums == pytest.approx(scores.sums, abs=1e-5)


def test_a_clip_is_encoded_once(tiny: LoadedCheckpoint, clips: list[Path]) -> None:
    system = CheckpointSystem(*tiny)
    for _ in range(2):
        system.answer([Request("Which?", clip) for clip in (*clips, clips[0])], 2)
        system.score([Request("What?", clip, ("a dog",)) for clip in clips])
    assert sum(tiny.processor.codec.calls) == len(clips)


def test_the_end_of_turn_belongs_to_a_closed_choice_only(tiny: LoadedCheckpoint) -> None:
    system = CheckpointSystem(*tiny)
    closed, open_ = system.score(
        [Request("Which?", None, ("a dog",)), Request("Which?", None, ("a dog",), closed=False)]
    )
    assert isinstance(closed, ChoiceScores) and isinstance(open_, ChoiceScores)
    assert closed.tokens[0] == open_.tokens[0] + 1 and closed.sums[0] < open_.sums[0]


def test_what_cannot_be_answered_is_refused_with_the_reason(tiny: LoadedCheckpoint, clips: list[Path]) -> None:
    clips[1].write_text("not audio")
    system = CheckpointSystem(*tiny)
    requests = [Request("Which?", clip, ("a dog",)) for clip in clips]
    for replies in (system.answer(requests, 2), system.score(requests)):
        kinds = [isinstance(reply, Refused) for reply in replies]
        assert kinds == [False, True, False] and clips[1].name in replies[1].reason
    (full,) = system.answer([Request("Which?")], tiny.processor.max_length or 0)
    assert isinstance(full, Refused) and "--max_new_tokens" in full.reason
    (full,) = system.score([Request("Which?", None, ("dog " * 1200,))])
    assert isinstance(full, Refused)


def test_identity_changes_with_weights_and_tokenizer(tiny: LoadedCheckpoint) -> None:
    system = CheckpointSystem(*tiny)
    before = system.identity
    assert system.identity == before
    with torch.no_grad():
        next(iter(tiny.model.parameters())).view(-1)[0] += 1e-3
    after = system.identity
    assert {name for name in before if before[name] != after[name]} == {"weights"}
    tiny.processor.tokenizer.add_tokens(["entirely new"])
    assert system.identity["tokenizer"] != before["tokenizer"]
