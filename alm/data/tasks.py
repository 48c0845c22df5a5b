"""From clips with texts to what a model is asked: describing, transcribing, speaking, making the sound, going on without a request.

A reader gives each clip once (`alm.data.example.clip_with_text`); tasks are chosen per data set. Each request is put in one of
several ways, chosen by the example's id, so that a model does not hang on one wording; the first is what `alm.generation` uses.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence

from alm.data.example import CAPTION, TRANSCRIPT, Content, DataError, Example, Message
from alm.prompts import SOUND_REQUEST, SPEECH_REQUEST

AS_IT_IS, DESCRIBE, TRANSCRIBE, SPEAK, MAKE_SOUND, AUDIO_ONLY, TEXT_ONLY = (
    *("as_it_is", "describe", "transcribe", "speak", "make_sound", "audio_only", "text_only"),
)
PHRASINGS = {
    DESCRIBE: (
        "Describe the audio.",
        "What is heard?",
        "Tell what this recording sounds like.",
        "Write a caption of this clip.",
        "Describe this sound in words.",
    ),
    TRANSCRIBE: (
        "Write down what is said.",
        "Transcribe the speech.",
        "What are the words in this recording?",
        "Give the transcript of this clip.",
    ),
    SPEAK: (
        SPEECH_REQUEST,
        "Read this aloud: {}",
        "Speak the following text: {}",
        "Turn this text into speech: {}",
    ),
    MAKE_SOUND: (
        SOUND_REQUEST,
        "Create the audio: {}",
        "Generate a recording of this: {}",
        "Let me hear this: {}",
    ),
}
FITTING = {
    TRANSCRIPT: (SPEAK, TRANSCRIBE, AUDIO_ONLY, TEXT_ONLY),
    CAPTION: (MAKE_SOUND, DESCRIBE, AUDIO_ONLY, TEXT_ONLY),
    None: (AS_IT_IS,),
}
"""The tasks that fit a kind of text; questions and answers (None) are conversations already."""
TASKS = (AS_IT_IS, *PHRASINGS, AUDIO_ONLY, TEXT_ONLY)


def as_task(examples: Iterable[Example], task: str, seed: int = 0) -> Iterator[Example]:
    """Each example as a conversation of `task`, its source marked with it. Raises `DataError` where a task does not fit."""
    for example in examples:
        yield (
            example
            if task == AS_IT_IS
            else Example(example.id, f"{example.source} {task}", conversation(example, task, seed), example.meta)
        )


def conversation(example: Example, task: str, seed: int = 0) -> list[Message]:
    """Messages of one example under one task. Raises `DataError` where the task does not fit the example's kind of text."""
    kind = example.meta.get("kind")
    if task not in FITTING.get(kind, ()):
        fitting = ", ".join(FITTING.get(kind, ())) or "none"
        raise DataError(
            f"{example.source} {example.id}: task {task!r} does not fit it ({kind or 'a conversation'}); fitting: {fitting}"
        )
    if task == AS_IT_IS:
        return example.messages
    (audio,), (text,) = (message["content"] for message in example.messages)
    request = {"type": "text", "text": phrasing(task, example.id, seed).replace("{}", text["text"])}
    if task in (DESCRIBE, TRANSCRIBE):
        return [_says("user", audio, request), _says("assistant", text)]
    if task in (SPEAK, MAKE_SOUND):
        return [_says("user", request), _says("assistant", audio)]
    return [_says("assistant", audio if task == AUDIO_ONLY else text)]


def phrasing(task: str, example_id: str, seed: int = 0) -> str:
    """The way in which a request is put: the same for an example at every pass; empty for tasks without a request."""
    ways: Sequence[str] = PHRASINGS.get(task, ("",))
    return ways[int.from_bytes(hashlib.sha256(f"{seed} {task} {example_id}".encode()).digest()[:4]) % len(ways)]


def _says(role: str, *content: Content) -> Message:
    return {"role": role, "content": list(content)}
