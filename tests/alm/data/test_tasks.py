"""Tasks: one clip and its text become what a model is asked, in wordings fixed by the example."""

from typing import Any

import pytest

from alm.data.example import CAPTION, TRANSCRIPT, DataError, Example, clip_with_text, question_answer
from alm.data.tasks import (
    AUDIO_ONLY,
    DESCRIBE,
    FITTING,
    MAKE_SOUND,
    PHRASINGS,
    SPEAK,
    TEXT_ONLY,
    TRANSCRIBE,
    as_task,
    conversation,
)
from alm.prompts import sound_messages, speech_messages

AUDIO = {"type": "audio", "path": "a.wav"}


def clip(number: int, text: str, kind: str) -> Example:
    return clip_with_text(f"x:{number}", "set", {"path": "a.wav"}, text, kind)


@pytest.mark.parametrize(("kind", "told", "made"), [(TRANSCRIPT, TRANSCRIBE, SPEAK), (CAPTION, DESCRIBE, MAKE_SOUND)])
def test_directions(kind: str, told: str, made: str) -> None:
    one = clip(0, "{} a dog", kind)  # braces in a text are a text's own
    user, assistant = conversation(one, told)
    assert user["content"][0] == AUDIO and assistant["content"] == [{"type": "text", "text": "{} a dog"}]
    user, assistant = conversation(one, made)
    assert assistant["content"] == [AUDIO] and user["content"][0]["text"].count("{} a dog") == 1
    (only,) = conversation(one, AUDIO_ONLY)
    assert only == {"role": "assistant", "content": [AUDIO]}
    (only,) = conversation(one, TEXT_ONLY)
    assert only == {"role": "assistant", "content": [{"type": "text", "text": "{} a dog"}]}


def test_every_wording_is_used_and_stays_with_its_example() -> None:
    for task, ways in PHRASINGS.items():
        kind = TRANSCRIPT if task in FITTING[TRANSCRIPT] else CAPTION
        asked = [conversation(clip(n, "T", kind), task)[0]["content"][-1]["text"] for n in range(200)]
        assert set(asked) == {way.replace("{}", "T") for way in ways}
        assert asked == [conversation(clip(n, "T", kind), task)[0]["content"][-1]["text"] for n in range(200)]
        other = [conversation(clip(n, "T", kind), task, seed=1)[0]["content"][-1]["text"] for n in range(200)]
        assert asked != other


def test_generation_asks_in_a_way_that_was_trained() -> None:
    for kind, task, asked in ((TRANSCRIPT, SPEAK, speech_messages("T")), (CAPTION, MAKE_SOUND, sound_messages("T"))):
        trained = [conversation(clip(n, "T", kind), task)[0] for n in range(100)]
        assert asked[0] in trained


def test_what_does_not_fit_is_refused() -> None:
    question = Example("q", "set", question_answer("a.wav", "What?", "A dog."))
    assert list(as_task([question], "as_it_is")) == [question]
    for example, task in ((question, SPEAK), (clip(0, "T", CAPTION), SPEAK), (clip(0, "T", TRANSCRIPT), "sing")):
        with pytest.raises(DataError, match=f"task '{task}' does not fit it .*; fitting: "):
            list(as_task([example], task))
    (done,) = as_task([clip(3, "T", CAPTION)], DESCRIBE)
    assert done.source == "set describe" and done.id == "x:3"


def test_a_clip_with_text_is_a_conversation(language_model: Any) -> None:
    codes = {"codes": [[1, 2, 3]]}
    one = clip_with_text("x", "set", codes, "a dog", CAPTION)
    for task in FITTING[CAPTION]:
        ids, labels = language_model.processor.training_ids(conversation(one, task))
        assert any(label != -100 for label in labels) and len(ids) == len(labels)
