"""The one chat template and the one multiple-choice prompt of training, evaluation and serving.

Conversations are plain ChatML. The Jinja template is what other engines read from the checkpoint; `render` is the same thing as pieces
whose audio and whose labelled parts are known, for token-exact use inside the project (a test holds the two equal).
"""

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

from alm.data.example import Content, DataError, Message
from alm.vocabulary import AUDIO_END, AUDIO_PLACEHOLDER, AUDIO_START

TURN_START, TURN_END, PADDING = "<|im_start|>", "<|im_end|>", "<|endoftext|>"
"""Qwen's own control tokens; generation stops at `TURN_END`, and padding is never a stop token."""
ROLES = ("system", "user", "assistant")
AUDIO_SPAN = f"{AUDIO_START}{AUDIO_PLACEHOLDER}{AUDIO_END}"

CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{{- '" + TURN_START + "' + message['role'] + '\\n' -}}"
    "{%- if message['content'] is string -%}"
    "{{- message['content'] -}}"
    "{%- else -%}"
    "{%- for item in message['content'] -%}"
    "{%- if item['type'] == 'audio' -%}{{- '" + AUDIO_SPAN + "' -}}"
    "{%- elif item['type'] == 'text' -%}{{- item['text'] -}}"
    "{%- else -%}{{- raise_exception('content is text or audio, not ' + item['type']) -}}{%- endif -%}"
    "{%- endfor -%}"
    "{%- endif -%}"
    "{{- '" + TURN_END + "\\n' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '" + TURN_START + "assistant\\n' -}}{%- endif -%}"
)

MULTIPLE_CHOICE_PROMPT_ID = "mmar-authors"
# the paper gives no wording; training on speech and sounds uses the same
SPEECH_REQUEST, SOUND_REQUEST = "Say this: {}", "Make this sound: {}"


def multiple_choice_prompt(question: str, choices: Sequence[str]) -> str:
    """The question as MMAR's authors put it to models (prompt id `mmar-authors`); the answer is the bare text of a choice."""
    return f"{question}\nSelect one option from the provided choices:\n" + "\n".join(choices)


class Piece(NamedTuple):
    """A part of a rendered conversation, in order.

    `value` is a string, or the content item where `kind` is `audio`; `answer` marks what the assistant says, its `<|im_end|>` included.
    """

    kind: Literal["template", "text", "audio"]
    value: str | Content
    answer: bool


def render(messages: Sequence[Message], add_generation_prompt: bool = False) -> Iterator[Piece]:
    """A conversation as pieces; their texts joined are what `CHAT_TEMPLATE` gives.

    Neighbouring texts come as one piece. Raises `DataError` on an unknown role or kind of content, or an empty conversation.
    """
    if not messages:
        raise DataError("a conversation needs at least one message, got none")
    for message in messages:
        role = message.get("role")
        if role not in ROLES:
            raise DataError(f"unknown role {role!r} in a message; accepted are {', '.join(ROLES)}")
        answer = role == "assistant"
        yield Piece("template", f"{TURN_START}{role}\n", False)
        yield from _content(message, answer)
        yield Piece("template", TURN_END, answer)
        yield Piece("template", "\n", False)
    if add_generation_prompt:
        yield Piece("template", f"{TURN_START}assistant\n", False)


def _content(message: Message, answer: bool) -> Iterator[Piece]:
    content = message.get("content")
    items = [{"type": "text", "text": content}] if isinstance(content, str) else content
    if not isinstance(items, list):
        raise DataError(f"a message's content is a text or a list of items, got {type(content).__name__}")
    text: list[str] = []
    for item in items:
        kind = item.get("type") if isinstance(item, dict) else None
        if kind == "text" and isinstance(item.get("text"), str):
            text.append(item["text"])
        elif kind == "audio":
            if text:
                yield Piece("text", "".join(text), answer)
                text = []
            yield Piece("audio", item, answer)
        else:
            raise DataError(
                f'content items are {{"type": "text", "text": …}} or {{"type": "audio", …}}, got {str(item)[:80]}'
            )
    if text:
        yield Piece("text", "".join(text), answer)


def question_messages(question: str, audio: Content | None = None) -> list[Message]:
    """A question, about the clip of an audio item where one is given."""
    clip = [] if audio is None else [audio]
    return [{"role": "user", "content": [*clip, {"type": "text", "text": question}]}]


def speech_messages(text: str, voice: tuple[Content, str] | None = None) -> list[Message]:
    """The request to speak a text. `voice`, an audio item and what is said in it, comes before as an example to go on like."""
    before = [] if voice is None else [*_request(SPEECH_REQUEST, voice[1]), _spoken(voice[0])]
    return [*before, *_request(SPEECH_REQUEST, text)]


def sound_messages(caption: str) -> list[Message]:
    """The request to make the sound of a caption."""
    return _request(SOUND_REQUEST, caption)


def _request(request: str, text: str) -> list[Message]:
    return [{"role": "user", "content": [{"type": "text", "text": request.replace("{}", text)}]}]


def _spoken(item: Content) -> Message:
    return {"role": "assistant", "content": [item]}
