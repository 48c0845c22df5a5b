"""What a checkpoint is asked for: an answer about a clip, a spoken sentence, a sound.

    model, processor = load_checkpoint("runs/demo/model")
    answer(model, processor, "What is heard?", audio="clip.wav")
    speak(model, processor, "Good morning.").save("morning.wav")
    make_sound(model, processor, ["rain on a tin roof", "a bell"], seed=1)

One request gives one result and a list a list. A request's result depends on its text, its audio and its own seed (`seed` plus its place in
the list), not on the batch it is computed in.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, overload

import numpy as np
from transformers import PreTrainedModel

from alm.data.example import Content, Message
from alm.generation.decoding import GrammarDecoder, Turn
from alm.generation.grammar import AudioGrammar
from alm.generation.sampling import GREEDY, Sampling
from alm.processing import AudioLanguageProcessor, LengthError
from alm.prompts import question_messages, sound_messages, speech_messages
from alm.vocabulary import AudioVocabulary
from codec.audio import write_audio
from codec.base import Codes, Waveform

Audio = str | Path | Content
"""A file, or an audio item of messages: `{"audio": (S,), "sampling_rate": …}`, `{"codes": (K, T)}`, `{"bytes": …}`."""
SPEECH_SAMPLING = Sampling(temperature=0.8, top_p=0.95)
"""Greedy decoding of audio tokens tends to repeat itself; these are ours, the paper gives none."""
Result = TypeVar("Result")


class Sound(NamedTuple):
    """Generated audio: `waveform` `(S,)` in [-1, 1] and the codes `(K, T)` it was decoded from."""

    waveform: Waveform
    sampling_rate: int
    codes: Codes
    forced_end: bool
    """Cut at the longest duration allowed; the model did not end it."""

    @property
    def seconds(self) -> float:
        """Duration."""
        return len(self.waveform) / self.sampling_rate

    def save(self, path: str | Path) -> None:
        """Write a WAV or FLAC file."""
        write_audio(path, self.waveform, self.sampling_rate)


@overload
def answer(
    model: PreTrainedModel, processor: AudioLanguageProcessor, question: str, audio: Audio | None = None, **options: Any
) -> str: ...
@overload
def answer(
    model: PreTrainedModel,
    processor: AudioLanguageProcessor,
    question: Sequence[str],
    audio: Sequence[Audio | None] | None = None,
    **options: Any,
) -> list[str]: ...
def answer(
    model: PreTrainedModel,
    processor: AudioLanguageProcessor,
    question: str | Sequence[str],
    audio: Audio | Sequence[Audio | None] | None = None,
    **options: Any,
) -> str | list[str]:
    """The answer in text to a question, about a clip where `audio` is given; of several, to each with its own clip.

    `options` are those of `answers`: `max_new_tokens`, `sampling` (greedy by default), `seed`, `batch_size`, `sliced`.

    Raises `ValueError` where questions and clips differ in number, `LengthError` where a prompt leaves no room for `max_new_tokens`,
    `codec.audio.AudioError` on a file that cannot be read.
    """
    single = isinstance(question, str)
    questions = [question] if isinstance(question, str) else list(question)
    clips: list[Any] = [audio] if single else [None] * len(questions) if audio is None else list(audio)  # type: ignore[arg-type]
    if len(clips) != len(questions):
        raise ValueError(
            f"{len(questions)} questions, but {len(clips)} clips; give each its own, or None where it has none"
        )
    asked = [question_messages(text, clip and _item(clip)) for text, clip in zip(questions, clips, strict=True)]
    texts = [text for text, _ in answers(model, processor, prompt_ids(processor, asked), **options)]
    return texts[0] if single else texts


class Answer(NamedTuple):
    """An answer's text without special tokens, and whether it ended its turn by itself."""

    text: str
    stopped: bool


def answers(
    model: PreTrainedModel,
    processor: AudioLanguageProcessor,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int = 256,
    sampling: Sampling = GREEDY,
    seed: int = 0,
    batch_size: int = 8,
    sliced: bool = True,
) -> list[Answer]:
    """Answers in text to prompts as ids `(L_i,)`: no audio token can come, whatever the checkpoint's own settings say.

    Raises `LengthError` where a prompt leaves no room for `max_new_tokens`.
    """
    require_room(processor, max(map(len, prompts), default=0), max_new_tokens)
    grammar = AudioGrammar(processor.vocabulary, text=True, max_spans=0)
    decoder = GrammarDecoder(model, processor.tokenizer, grammar, sampling, sliced=sliced)
    turns = _in_batches(prompts, batch_size, lambda some, seeds: decoder.turns(some, max_new_tokens, seeds), seed)
    return [Answer(processor.tokenizer.decode(turn.ids, skip_special_tokens=True), turn.stopped) for turn in turns]


@overload
def speak(model: PreTrainedModel, processor: AudioLanguageProcessor, text: str, **options: Any) -> Sound: ...
@overload
def speak(
    model: PreTrainedModel, processor: AudioLanguageProcessor, text: Sequence[str], **options: Any
) -> list[Sound]: ...
def speak(
    model: PreTrainedModel,
    processor: AudioLanguageProcessor,
    text: str | Sequence[str],
    voice: tuple[Audio, str] | None = None,
    **options: Any,
) -> Sound | list[Sound]:
    """A text spoken. `voice`, a clip and what is said in it, goes before as an example; `options` are those of `generate_audio`."""
    example = None if voice is None else (_item(voice[0]), voice[1])
    requests = [speech_messages(one, example) for one in ([text] if isinstance(text, str) else text)]
    blank = speech_messages("", example)
    made = generate_audio(model, processor, requests, blank, **options)
    return made[0] if isinstance(text, str) else made


@overload
def make_sound(model: PreTrainedModel, processor: AudioLanguageProcessor, caption: str, **options: Any) -> Sound: ...
@overload
def make_sound(
    model: PreTrainedModel, processor: AudioLanguageProcessor, caption: Sequence[str], **options: Any
) -> list[Sound]: ...
def make_sound(
    model: PreTrainedModel, processor: AudioLanguageProcessor, caption: str | Sequence[str], **options: Any
) -> Sound | list[Sound]:
    """The sound of a caption; `options` are those of `generate_audio`."""
    requests = [sound_messages(one) for one in ([caption] if isinstance(caption, str) else caption)]
    made = generate_audio(model, processor, requests, sound_messages(""), **options)
    return made[0] if isinstance(caption, str) else made


def generate_audio(
    model: PreTrainedModel,
    processor: AudioLanguageProcessor,
    requests: Sequence[Sequence[Message]],
    unconditional: Sequence[Message],
    min_seconds: float = 0.2,
    max_seconds: float = 30.0,
    sampling: Sampling = SPEECH_SAMPLING,
    guidance_scale: float = 1.0,
    seed: int | Sequence[int] = 0,
    batch_size: int = 8,
    sliced: bool = True,
) -> list[Sound]:
    """Audio that answers conversations: one span of `min_seconds` to `max_seconds` each, decoded.

    `guidance_scale` above 1 pushes away from what the model would make of the `unconditional` conversation; `sliced` as in
    `alm.generation.decoding`; several `seed`s are each request's own. Raises `LengthError` where a prompt leaves no room for
    `max_seconds`, and as `require_waveforms`.
    """
    require_waveforms(processor)
    grammar = span_grammar(processor.vocabulary, min_seconds, max_seconds)
    room = grammar.max_span_ids + 1
    decoder = GrammarDecoder(model, processor.tokenizer, grammar, sampling, guidance_scale, sliced)
    against = prompt_ids(processor, [unconditional], room) if guidance_scale != 1.0 else None

    def turns(some: Sequence[Sequence[int]], seeds: Sequence[int]) -> list[Turn]:
        return decoder.turns(some, room, seeds, against and against * len(some))

    made = list(_in_batches(prompt_ids(processor, requests, room), batch_size, turns, seed))
    codec = processor.require_codec()
    codes = [processor.vocabulary.ids_to_codes(turn.ids[1:-2]) for turn in made]  # without start, end, stop
    return [
        Sound(waveform, codec.sampling_rate, code, turn.forced_ends > 0)
        for waveform, code, turn in zip(codec.decode(codes), codes, made, strict=True)
    ]


def span_grammar(vocabulary: AudioVocabulary, min_seconds: float, max_seconds: float) -> AudioGrammar:
    """The grammar of one audio span that lasts so long. Raises `ValueError` where no whole frame fits."""
    # rounded first: 0.58 s at 50 frames a second are 28.999999999999996 frames in binary
    least, most = (round(seconds * vocabulary.frame_rate, 6) for seconds in (min_seconds, max_seconds))
    return AudioGrammar(vocabulary, max(1, math.ceil(least)), math.floor(most))


def require_waveforms(processor: AudioLanguageProcessor) -> None:
    """Decode a third of a second now, to raise what decoding would after all the generating: no codec, or one without a vocoder."""
    codes = np.zeros((processor.vocabulary.num_codebooks, 16), dtype=np.int64)
    processor.decode_audio(processor.vocabulary.codes_to_ids(codes).tolist())


def prompt_ids(
    processor: AudioLanguageProcessor, conversations: Sequence[Sequence[Message]], room: int = 1
) -> list[list[int]]:
    """Ids of conversations up to where the assistant is to speak. Raises `LengthError` where fewer than `room` ids fit behind."""
    prompts = processor.encode_conversations(conversations, add_generation_prompt=True)
    require_room(processor, max(map(len, prompts), default=0), room)
    return prompts


def require_room(
    processor: AudioLanguageProcessor, longest: int, room: int, less: str = "max_new_tokens or max_seconds"
) -> None:
    """Raise `LengthError` where a prompt of `longest` tokens leaves the model fewer than `room`; `less` names what asks for them."""
    limit = processor.max_length
    if limit is not None and longest + room > limit:
        raise LengthError(
            f"a prompt of {longest} tokens and {room} to be generated are more than the {limit} that the model takes "
            f"(max_position_embeddings): at most {max(limit - longest, 0)} fit behind it. Shorten the audio or the text, or lower {less}"
        )


def _in_batches(
    prompts: Sequence[Sequence[int]],
    batch_size: int,
    run: Callable[[Sequence[Sequence[int]], Sequence[int]], list[Result]],
    seed: int | Sequence[int],
) -> Iterator[Result]:
    seeds = range(seed, seed + len(prompts)) if isinstance(seed, int) else seed
    for start in range(0, len(prompts), batch_size):
        some = slice(start, start + batch_size)
        yield from run(prompts[some], seeds[some])


def _item(audio: Audio) -> Content:
    return {"type": "audio", **({"path": audio} if isinstance(audio, str | Path) else audio)}
