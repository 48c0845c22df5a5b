"""A reply becomes a caption only where it keeps C.2's rules."""

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alm.captioning.prompts import DIMENSIONS, KINDS, OMITTED, instruction, prompt_hash
from alm.captioning.structure import MAX_CHARACTERS, ORDER, StructureError, one_line, parse, with_transcript

GOOD: dict[str, Any] = {
    "speaker": "A middle-aged man reads calmly.",
    "environment": "The room is quiet and dry.",
    "music": "A slow piano piece in a minor key.",
    "events": "A door closes at 2 seconds on the left.",
}
WORDS = st.lists(st.text("abcdefgäß,'狗", min_size=1, max_size=8), min_size=3, max_size=20).map(" ".join)


def reply(**changes: Any) -> str:
    return json.dumps({**GOOD, **changes})


@pytest.mark.parametrize(("kind", "left_out"), OMITTED.items())
def test_the_papers_rule_of_omission(kind: Any, left_out: str) -> None:
    caption = parse(reply(**{left_out: None}), kind, 5.0).caption()
    assert all(GOOD[name] in caption for name in DIMENSIONS if name != left_out) and GOOD[left_out] not in caption
    with pytest.raises(StructureError, match=f'"{left_out}" must be null'):
        parse(reply(), kind, 5.0)
    rest = {name: text for name, text in GOOD.items() if name != left_out}
    assert parse(json.dumps(rest), kind, 5.0).caption() == caption  # a key that is not there is left out, too
    for empty in ("", "N/A", "none.", {}, []):
        assert parse(reply(**{left_out: empty}), kind, 5.0).caption() == caption


def test_what_is_left_out_may_not_come_back_in_another_dimension() -> None:
    with pytest.raises(StructureError, match=r'"environment" tells of music .* speech only: "Soft music plays\."'):
        parse(reply(music=None, environment="It is indoors. Soft music plays."), "speech", 5.0)
    with pytest.raises(StructureError, match='"events" tells of somebody who talks'):
        parse(reply(speaker=None, events="A narrator is heard at the end."), "music", 5.0)
    # the paper's own captions say what is not there (Figures 4 and 5), and a speaker may talk about music
    parse(reply(music=None, events="No music or non-speech sound events are present."), "speech", 5.0)
    parse(reply(music=None, speaker="She talks about music with joy."), "speech", 5.0)
    parse(reply(speaker=None, music="A guitar from the left speaker. There isn't any speech."), "music", 5.0)
    parse(reply(environment="Soft music plays behind it."), "sound", 5.0)


@pytest.mark.parametrize("content", ORDER)
def test_auto_follows_what_the_model_says(content: str) -> None:
    left_out = OMITTED.get(content)
    found = parse(reply(content=content.title(), **({left_out: None} if left_out else {})), "auto", 5.0)
    assert found.content == content
    assert found.caption() == " ".join(GOOD[name] for name in ORDER[content])


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("I hear a dog.", "no JSON object"),
        ('{"a": 1}', "no JSON object|breaks off"),
        (reply()[:-20], "breaks off"),
        ("", "no JSON object"),
        ("[1, 2]", "no JSON object"),
        (reply(events=None), '"events" is missing or empty'),
        (reply(environment="Unknown."), '"environment" is missing or empty'),
        (reply(environment="..."), '"environment" is missing or empty'),
        (reply(environment="Quiet."), '"environment" must be a sentence'),
        (reply(music=["piano", "guitar"]), '"music" must be a text'),
        (reply(music="piano " * 200), f"at most {MAX_CHARACTERS}"),
        (reply(music=DIMENSIONS["music"]), "repeats the question"),
        (reply(events="A horn sounds at 12.5 seconds."), "names second 12.5"),
    ],
)
def test_a_reply_that_breaks_a_rule_says_which(text: str, reason: str) -> None:
    with pytest.raises(StructureError, match=reason):
        parse(text, "sound", 5.0)


def test_auto_needs_a_content() -> None:
    for content in (None, "noise", 3):
        with pytest.raises(StructureError, match='"content" must be one of'):
            parse(reply(content=content), "auto", 5.0)


def test_thoughts_fences_and_further_keys_are_passed_over() -> None:
    draft = json.dumps({"speaker": "A wrong draft of it."})
    text = f"<think>maybe {draft}</think>Sure {{not json}}:\n```json\n{reply(confidence=0.9)}\n``` Bye."
    assert parse(text, "sound", 5.0) == parse(reply(), "sound", 5.0)


@given(texts=st.tuples(WORDS, WORDS, WORDS, WORDS), before=st.text(max_size=40), after=st.text(max_size=40))
def test_any_texts_survive_any_surroundings(texts: tuple[str, ...], before: str, after: str) -> None:
    if "<think>" in before:
        return
    data = dict(zip(DIMENSIONS, texts, strict=True))
    found = parse(before + json.dumps(data) + after, "sound", 5.0)
    caption = found.caption()
    for text in texts:
        assert one_line(text)[1:] in caption
    assert "\n" not in caption and caption == one_line(caption)


@given(st.text(max_size=200), st.sampled_from(KINDS))
def test_any_text_is_read_or_refused(text: str, kind: Any) -> None:
    with contextlib.suppress(StructureError):
        parse(text, kind, 5.0)


@given(
    st.dictionaries(
        st.sampled_from(["content", *DIMENSIONS]), st.none() | st.text() | st.integers() | st.lists(st.text())
    )
)
def test_any_object_is_read_or_refused(data: dict[str, Any]) -> None:
    try:
        caption = parse(json.dumps(data), "auto", 5.0).caption()
    except StructureError:
        return
    assert caption.isprintable()


def test_the_transcript_is_appended_on_one_line() -> None:
    assert with_transcript("A man reads.", "HE LOOKED\nOUT ") == "A man reads. Transcript: HE LOOKED OUT"


def test_the_instruction_asks_for_what_the_check_wants() -> None:
    for kind in KINDS:
        text = instruction(kind, 12.34)
        assert "12.3 seconds" in text and ('"content"' in text) == (kind == "auto")
        for name, attributes in DIMENSIONS.items():
            assert (f'- "{name}": {attributes}' in text) == (OMITTED.get(kind) != name)
    assert len(prompt_hash()) == 16
