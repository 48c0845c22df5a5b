"""The Jinja template and its pieces say the same."""

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers.utils.chat_template_utils import render_jinja_template

from alm.data.example import DataError
from alm.prompts import AUDIO_SPAN, CHAT_TEMPLATE, multiple_choice_prompt, render

TEXT = st.text(max_size=20)
ITEM = st.one_of(
    st.fixed_dictionaries({"type": st.just("text"), "text": TEXT}),
    st.fixed_dictionaries({"type": st.just("audio"), "path": st.just("a.wav")}),
)
MESSAGE = st.fixed_dictionaries(
    {"role": st.sampled_from(["system", "user", "assistant"]), "content": st.one_of(TEXT, st.lists(ITEM, max_size=4))}
)


@given(st.lists(MESSAGE, min_size=1, max_size=4), st.booleans())
def test_pieces_are_the_template(messages: list[dict[str, Any]], prompt: bool) -> None:
    pieces = list(render(messages, prompt))
    text = "".join(piece.value if isinstance(piece.value, str) else AUDIO_SPAN for piece in pieces)
    rendered, _ = render_jinja_template([messages], chat_template=CHAT_TEMPLATE, add_generation_prompt=prompt)
    assert text == rendered[0]
    assert all(a.kind != "text" or b.kind != "text" for a, b in pairwise(pieces))


def test_answers_are_marked() -> None:
    messages = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    assert [(piece.value, piece.answer) for piece in render(messages)] == [
        ("<|im_start|>user\n", False),
        ("q", False),
        ("<|im_end|>", False),
        ("\n", False),
        ("<|im_start|>assistant\n", False),
        ("a", True),
        ("<|im_end|>", True),
        ("\n", False),
    ]


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([], "at least one"),
        ([{"role": "tool", "content": "x"}], "unknown role 'tool'"),
        ([{"role": "user", "content": 3}], "got int"),
        ([{"role": "user", "content": [{"type": "image"}]}], "got {'type': 'image'}"),
        ([{"role": "user", "content": [{"type": "text", "text": None}]}], "content items are"),
        ([{"role": "user", "content": ["x"]}], "content items are"),
    ],
)
def test_malformed_conversations(messages: list[Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        list(render(messages))


def test_multiple_choice_prompt() -> None:
    expected = "Which?\nSelect one option from the provided choices:\ncat\ndog"
    assert multiple_choice_prompt("Which?", ["cat", "dog"]) == expected
