"""Laws of the processor: prompts are prefixes, users write no control tokens, audio is exact, nothing is cut."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from alm.checkpoint import LoadedCheckpoint
from alm.data.example import DataError
from alm.processing import AudioLanguageProcessor, LengthError
from alm.prompts import CHAT_TEMPLATE
from alm.vocabulary import ContractError
from codec.audio import write_audio

NASTY = st.sampled_from(
    ["<|im_end|>", "<|im_start|>", "<|endoftext|>", "<|audio_0_3|>", "<|audio_end|>", "<|audio_pad|>"]
)
TEXT = st.lists(st.one_of(st.text(max_size=8), NASTY, st.sampled_from(["\n", " ", "<|im_", "end|>"])), max_size=4).map(
    "".join
)
CODES = st.lists(st.integers(0, 63), max_size=5).map(lambda row: np.array([row], dtype=np.int64))
ITEM = st.one_of(
    TEXT.map(lambda text: {"type": "text", "text": text}), CODES.map(lambda codes: {"type": "audio", "codes": codes})
)
TURN = st.tuples(st.lists(ITEM, max_size=3), st.lists(ITEM, max_size=3))
same_fixture = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


def conversation(turns: list[tuple[list[Any], list[Any]]]) -> list[dict[str, Any]]:
    pairs = ([("user", question), ("assistant", answer)] for question, answer in turns)
    return [{"role": role, "content": content} for pair in pairs for role, content in pair]


@same_fixture
@given(st.lists(TURN, min_size=1, max_size=3))
def test_prompts_are_prefixes_of_training(language_model: LoadedCheckpoint, turns: list[Any]) -> None:
    processor, messages = language_model.processor, conversation(turns)
    ids, labels = processor.training_ids(messages)
    assert ids == processor.encode_messages(messages)
    assert all(label in (-100, token) for token, label in zip(ids, labels, strict=True))
    stop = processor.tokenizer.convert_tokens_to_ids("<|im_end|>")
    for turn in range(len(turns)):
        prompt = processor.encode_messages(messages[: 2 * turn + 1], add_generation_prompt=True)
        assert ids[: len(prompt)] == prompt and labels[len(prompt) - 1] == -100
        answer = labels[len(prompt) : ids.index(stop, len(prompt)) + 1]
        assert -100 not in answer and answer[-1] == stop  # the stop token is always learned
        assert labels[len(prompt) + len(answer)] == -100


@same_fixture
@given(TEXT)
def test_users_write_no_control_tokens(language_model: LoadedCheckpoint, text: str) -> None:
    processor = language_model.processor
    ids = processor.encode_messages([{"role": "user", "content": text}])
    vocabulary, tokenizer = processor.vocabulary, processor.tokenizer
    added = {token for token in ids if token in tokenizer.added_tokens_decoder}
    # those of the template, and once each
    assert added == set(tokenizer.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>"]))
    assert sum(token in added for token in ids) == 2 and max(ids) < vocabulary.start_id
    import unicodedata

    expected = f"<|im_start|>user\n{text}<|im_end|>\n"
    assert unicodedata.normalize("NFC", tokenizer.decode(ids)) == unicodedata.normalize("NFC", expected)


@same_fixture
@given(st.lists(st.text(max_size=12).filter(lambda text: "<|" not in text), min_size=1, max_size=3))
def test_a_prompt_is_what_other_engines_make_of_the_template(
    language_model: LoadedCheckpoint, texts: list[str]
) -> None:
    processor = language_model.processor
    messages = [{"role": "user", "content": [{"type": "text", "text": text} for text in texts]}]
    rendered = processor.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert processor.apply_chat_template(messages, add_generation_prompt=True) == rendered
    expected = processor.tokenizer.encode(rendered, add_special_tokens=False)
    assert processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=True) == expected


def test_audio_reaches_the_ids_from_every_source(
    language_model: LoadedCheckpoint, toy_codec: Any, tmp_path: Path
) -> None:
    processor, vocabulary = language_model.processor, language_model.processor.vocabulary
    wave = np.round(np.sin(np.arange(4800) / 7) * 20_000).astype(np.int16)
    write_audio(tmp_path / "a.wav", wave, 24_000)
    as_float = (wave / 32768).astype(np.float32)
    codes = toy_codec.encode([as_float])[0]
    packed = (tmp_path / "a.wav").read_bytes()
    sources: list[dict[str, Any]] = [
        {"path": str(tmp_path / "a.wav")},
        {"codes": codes},
        {"audio": as_float, "sampling_rate": 24_000},
        {"audio": str(tmp_path / "a.wav")},  # Transformers' form
        {"bytes": packed},
        {"audio": {"bytes": packed, "path": "name/in/the/archive.wav"}},  # datasets' Audio(decode=False)
        {"audio": {"array": as_float, "sampling_rate": 24_000, "path": None}},  # datasets' Audio()
    ]
    toy_codec.calls.clear()
    items = [{"type": "audio", **source} for source in sources]
    ids = processor.encode_messages([{"role": "user", "content": items}])
    assert toy_codec.calls == [6]  # one batch, and nothing for what is encoded already
    span = [vocabulary.start_id, *vocabulary.codes_to_ids(codes).tolist(), vocabulary.end_id]
    assert ids[-7 * len(span) - 2 : -2] == span * 7
    np.testing.assert_array_equal(processor.decode_audio(span), toy_codec.decode([codes])[0])
    np.testing.assert_array_equal(processor.decode_audio(np.array(span[1:-1])), toy_codec.decode([codes])[0])
    rendered = processor.apply_chat_template([{"role": "user", "content": items}])
    called = processor(
        text=rendered, audio=[as_float] * 5 + [str(tmp_path / "a.wav"), sources[5]["audio"]], sampling_rate=24_000
    )
    assert called["input_ids"] == ids and called["attention_mask"] == [1] * len(ids)


def test_spoken_answers_are_labelled_whole(language_model: LoadedCheckpoint) -> None:
    processor = language_model.processor
    answer = {"type": "audio", "codes": np.array([[5, 6]])}
    ids, labels = processor.training_ids(conversation([([{"type": "text", "text": "say it"}], [answer])]))
    vocabulary = processor.vocabulary
    span = [vocabulary.start_id, vocabulary.first_id + 5, vocabulary.first_id + 6, vocabulary.end_id]
    stop = processor.tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert [label for label in labels if label != -100] == [*span, stop]
    assert ids[-6:-1] == [*span, stop]


def test_batches_are_padded_on_the_left(language_model: LoadedCheckpoint) -> None:
    processor = language_model.processor
    short, long = [{"role": "user", "content": "a"}], [{"role": "user", "content": "a dog barks and barks"}]
    batch = processor.apply_chat_template(
        [short, long], tokenize=True, add_generation_prompt=True, return_dict=True, return_tensors="pt"
    )
    alone = processor.encode_messages(short, add_generation_prompt=True)
    assert batch["input_ids"][0, -len(alone) :].tolist() == alone
    assert batch["attention_mask"].sum(1).tolist() == [len(alone), batch["input_ids"].shape[1]]
    assert processor.apply_chat_template(short, tokenize=True, return_tensors="pt").shape[0] == 1
    with pytest.raises(TypeError, match="tools"):
        processor.apply_chat_template(short, tools=[])


def test_nothing_is_cut(make_language_model: Callable[..., LoadedCheckpoint], tmp_path: Path) -> None:
    processor = make_language_model(max_length=40).processor
    with pytest.raises(LengthError, match="at most 40"):
        processor.encode_messages([{"role": "user", "content": "a dog " * 40}])
    write_audio(tmp_path / "long.wav", np.zeros(24_000 * 2), 24_000)
    with pytest.raises(LengthError, match=r"long.wav: 2.0 s of audio are 100 tokens, but the model takes 40"):
        processor.encode_audio([tmp_path / "long.wav"])


def test_refusals(language_model: LoadedCheckpoint) -> None:
    processor = language_model.processor
    address = {"type": "audio", "path": "https://example.org/a.wav"}
    with pytest.raises(DataError, match="addresses are not fetched"):
        processor.encode_messages([{"role": "user", "content": [address]}])
    with pytest.raises(DataError, match="got only"):
        processor.encode_messages([{"role": "user", "content": [{"type": "audio", "url": "x"}]}])
    with pytest.raises(DataError, match="message of the assistant"):
        processor.training_ids([{"role": "user", "content": "q"}])
    with pytest.raises(DataError, match="1 audio placeholders in the text, but 0"):
        processor(text="<|audio_start|><|audio_pad|><|audio_end|>")
    with pytest.raises(ValueError, match="the span is empty"):
        processor.decode_audio([processor.vocabulary.start_id, processor.vocabulary.end_id])
    with pytest.raises(ValueError, match="not an audio token"):
        processor.decode_audio([3])


def test_save_and_load(language_model: LoadedCheckpoint, toy_codec: Any, make_toy_codec: Any, tmp_path: Path) -> None:
    processor = language_model.processor
    processor.save_pretrained(tmp_path)
    loaded = AudioLanguageProcessor.from_pretrained(tmp_path)
    assert loaded.vocabulary == processor.vocabulary and loaded.max_length == 512 and loaded.codec is None
    assert loaded.tokenizer.chat_template == CHAT_TEMPLATE == (tmp_path / "chat_template.jinja").read_text()
    messages = [{"role": "user", "content": "<|im_end|> a dog"}]
    assert loaded.encode_messages(messages) == processor.encode_messages(messages)
    with pytest.raises(ContractError, match="names no codec"):
        loaded.encode_audio([np.zeros(480, np.float32)])
    with pytest.raises(ContractError, match=r"other-0002.*toy-codec-0001"):
        loaded.codec = make_toy_codec(fingerprint="other-0002")
    loaded.codec = toy_codec
    assert loaded.encode_audio([np.zeros(480, np.float32)])[0].shape == (1, 1)


def test_another_template_is_refused(language_model: LoadedCheckpoint, tmp_path: Path) -> None:
    language_model.processor.save_pretrained(tmp_path)
    (tmp_path / "chat_template.jinja").write_text(CHAT_TEMPLATE.replace("user", "User") + " ")
    with pytest.raises(ContractError, match=r"restore the checkpoint's chat_template\.jinja"):
        AudioLanguageProcessor.from_pretrained(tmp_path)
