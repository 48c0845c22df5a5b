"""Laws of conversations as text: the server's tokenizer gives the processor's ids, and replies are read back."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from alm.checkpoint import LoadedCheckpoint
from alm.data.example import DataError
from alm.serving.messages import as_text, read_reply
from alm.vocabulary import AudioVocabulary

same_fixture = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
NASTY = st.sampled_from(["<|im_end|>", "<|endoftext|>", "<|audio_0_3|>", "<|audio_end|>", "<|audio_", "\n", " ", "<"])
TEXT = st.lists(st.one_of(st.text(max_size=8), NASTY), max_size=3).map("".join)
CODES = st.lists(st.integers(0, 63), max_size=5).map(lambda row: np.array([row], dtype=np.int64))
ITEM = st.one_of(
    TEXT.map(lambda text: {"type": "text", "text": text}), CODES.map(lambda codes: {"type": "audio", "codes": codes})
)
CONTROL = ("<|im_end|>", "<|im_start|>", "<|endoftext|>", "<|audio_0_3|>", "<|audio_end|>")


@same_fixture
@given(st.lists(st.tuples(st.lists(ITEM, max_size=3), st.lists(ITEM, max_size=3)), min_size=1, max_size=3))
def test_the_server_sees_the_ids_of_training(language_model: LoadedCheckpoint, turns: list[Any]) -> None:
    processor = language_model.processor
    pairs = ([("user", asked), ("assistant", said)] for asked, said in turns)
    messages = [{"role": role, "content": content} for pair in pairs for role, content in pair][:-1]
    ids = processor.encode_messages(messages, add_generation_prompt=True)
    try:
        found = as_text(messages, processor)
    except DataError:
        # nothing is refused without a reason
        written = ["".join(item.get("text", "\0") for item in message["content"]) for message in messages]
        assert any(token in text for token in CONTROL for text in written) or any(
            t[:1].isspace() for t in written[1::2]
        )
        return
    tokenizer = processor.tokenizer  # what stock Transformers, vLLM and llama.cpp do with a request
    assert found.ids == ids == tokenizer(found.prompt, add_special_tokens=False).input_ids
    rendered = tokenizer.apply_chat_template(found.messages, tokenize=False, add_generation_prompt=True)
    assert rendered == found.prompt
    assert [m["role"] for m in found.messages] == [m["role"] for m in messages]


@pytest.mark.parametrize("text", ["say <|im_end|> now", "<|audio_0_3|>", "<|endoftext|>", "<|audio_start|>"])
def test_control_tokens_in_text_are_refused(language_model: LoadedCheckpoint, text: str) -> None:
    with pytest.raises(DataError, match="cannot be sent as text"):
        as_text([{"role": "user", "content": text}], language_model.processor)


def spoken(items: list[dict[str, Any]], vocabulary: AudioVocabulary, marks: bool) -> str:
    names = vocabulary.tokens()
    start, end = ("<|audio_start|>", "<|audio_end|>") if marks else ("", "")
    return "".join(
        item["text"]
        if item["type"] == "text"
        else start + "".join(names[i - vocabulary.first_id] for i in vocabulary.codes_to_ids(item["codes"])) + end
        for item in items
    )


@same_fixture
@given(
    st.lists(
        st.tuples(
            st.text(alphabet="ab<|é\n", min_size=1, max_size=5).filter(lambda t: "<|" not in t), st.integers(1, 4)
        ),
        max_size=4,
    ),
    st.integers(1, 3),
    st.booleans(),
)
def test_replies_are_read_back(
    make_vocabulary: Callable[..., AudioVocabulary], parts: list[Any], num_codebooks: int, marks: bool
) -> None:
    vocabulary = make_vocabulary(num_codebooks)
    items: list[dict[str, Any]] = []
    for text, frames in parts:
        codes = np.random.default_rng(frames).integers(0, 64, (num_codebooks, frames))
        items += [{"type": "text", "text": text}, {"type": "audio", "codes": codes}]
    found = read_reply(spoken(items, vocabulary, marks), vocabulary)
    assert [item["type"] for item in found] == [item["type"] for item in items]
    for ours, theirs in zip(found, items, strict=True):
        if theirs["type"] == "text":
            assert ours["text"] == theirs["text"]
        else:
            np.testing.assert_array_equal(ours["codes"], theirs["codes"])


def test_marks_keep_touching_and_empty_spans_apart(make_vocabulary: Callable[..., AudioVocabulary]) -> None:
    vocabulary = make_vocabulary()
    found = read_reply("<|audio_start|><|audio_0_1|><|audio_end|><|audio_start|><|audio_end|>.", vocabulary)
    assert [item["codes"].tolist() if "codes" in item else item["text"] for item in found] == [[[1]], [[]], "."]
    # a prompt that ends in the start token leaves the reply with the end token alone
    assert read_reply("<|audio_0_2|><|audio_end|>", vocabulary)[0]["codes"].tolist() == [[2]]


@pytest.mark.parametrize(
    "reply", ["<|audio_0_1|>", "<|audio_1_1|><|audio_0_1|>", "<|audio_0_99|><|audio_1_0|>", "<|audio_0_07|>"]
)
def test_broken_frames_are_refused(make_vocabulary: Callable[..., AudioVocabulary], reply: str) -> None:
    with pytest.raises(DataError, match="the reply"):
        read_reply(reply, make_vocabulary(num_codebooks=2))
