"""Conversations with audio for servers that speak text, and their replies back: codes written as the strings of their tokens.

Any OpenAI-compatible server tokenises `<|audio_start|><|audio_0_17|>…<|audio_end|>` to the ids the model was trained on, and shows
codes it generates as text. Both directions need the processor or the vocabulary, never the model.
"""

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from alm.data.example import Content, DataError, Message
from alm.processing import AudioLanguageProcessor
from alm.prompts import TURN_END, TURN_START
from alm.vocabulary import AUDIO_END, AUDIO_START, AudioVocabulary
from codec.base import Codes


class TextConversation(NamedTuple):
    """A conversation that waits for the assistant, as text.

    `messages` is for `/v1/chat/completions` (the server applies the checkpoint's template), `prompt` for `/v1/completions`;
    `ids` is what either is tokenised to.
    """

    messages: list[dict[str, str]]
    prompt: str
    ids: list[int]


def as_text(messages: Sequence[Message], processor: AudioLanguageProcessor) -> TextConversation:
    """Write `messages` (the form of `AudioLanguageProcessor.encode_messages`) as text with the audio in it.

    Raises as `encode_messages`, and `DataError` where the text would not be tokenised to the same ids: a text API cannot quote the
    string of a control token, nor keep apart an assistant's line break from the template's.
    """
    ids = processor.encode_messages(messages, add_generation_prompt=True)
    prompt = processor.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    if processor.tokenizer(prompt, add_special_tokens=False).input_ids != ids:
        raise DataError(
            "this conversation cannot be sent as text: a message holds the string of a control or audio token (such as <|im_end|>), or an "
            "assistant's message begins with a line break. Send ids instead (vLLM's prompt_token_ids), or change that text"
        )
    turns = (turn.removesuffix(f"{TURN_END}\n").partition("\n") for turn in prompt.split(TURN_START)[1:-1])
    return TextConversation([{"role": role, "content": content} for role, _, content in turns], prompt, ids)


_TOKEN = re.compile(r"<\|audio_(0|[1-9][0-9]*)_(0|[1-9][0-9]*)\|>")
_START, _END = re.escape(AUDIO_START), re.escape(AUDIO_END)
_CODES = r"(?:<\|audio_[0-9]+_[0-9]+\|>)"
_SPAN = re.compile(f"(?:{_START})?({_CODES}*){_END}|{_START}({_CODES}*)|({_CODES}+)")


def read_reply(text: str, vocabulary: AudioVocabulary) -> list[Content]:
    """A reply as content items in order: `{"type": "text", "text": …}` and `{"type": "audio", "codes": (K, T)}`.

    Start and end tokens, which servers leave out of their text, may be there or not; without them, spans that touch come as one.
    Raises `DataError` where codes are not whole frames of this vocabulary, as in a reply cut by `max_tokens`.
    """
    return list(_items(text, vocabulary))


def _items(text: str, vocabulary: AudioVocabulary) -> Iterator[Content]:
    at = 0
    for match in _SPAN.finditer(text):
        if match.start() > at:
            yield {"type": "text", "text": text[at : match.start()]}
        yield {"type": "audio", "codes": _codes(next(part for part in match.groups() if part is not None), vocabulary)}
        at = match.end()
    if at < len(text):
        yield {"type": "text", "text": text[at:]}


def _codes(span: str, vocabulary: AudioVocabulary) -> Codes:
    size = vocabulary.codebook_size
    pairs = np.array([(int(k), int(c)) for k, c in _TOKEN.findall(span)], dtype=np.int64).reshape(-1, 2)
    foreign = len(pairs) != span.count("|>") or bool((pairs >= (vocabulary.num_codebooks, size)).any())
    if foreign:
        raise DataError(
            f"the reply has audio tokens this vocabulary lacks; its own are <|audio_0_0|> … {vocabulary.tokens()[-1]}"
        )
    try:
        return vocabulary.ids_to_codes(vocabulary.first_id + pairs @ (size, 1))
    except ValueError as error:
        raise DataError(f"the reply's audio cannot be read (was it cut by max_tokens?): {error}") from error
