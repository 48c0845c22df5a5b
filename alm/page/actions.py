"""What the page's buttons do, without the page: values of its fields in, what it shows out.

A user's mistake is a `ValueError` whose message can be shown as it is: a clip goes by its file's name, not by where the server keeps it.
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from alm.checkpoint import LoadedCheckpoint
from alm.data.example import DataError
from alm.generation import Sampling, Sound
from alm.generation.tasks import answers, prompt_ids
from alm.processing import AudioLanguageProcessor
from alm.prompts import question_messages
from alm.scoring.sound.spectrograms import Picture, spectrograms
from codec.audio import pcm16, read_audio
from codec.base import Waveform

Player = tuple[int, NDArray[np.int16]]
"""Sampling rate and 16-bit samples `(S,)`: a page's player would scale floats to full loudness, and nothing could be compared."""
LONGEST_SECONDS = 60.0
"""The longest sound the page offers to make, where the model does not take less."""
ROOM_FOR_TEXT = 64
"""Tokens of a prompt left beside the longest sound on offer; a longer text is refused by the task itself, which counts."""


class Reply(NamedTuple):
    """An answer and a line about it."""

    text: str
    note: str


class Made(NamedTuple):
    """A generated sound, its spectrogram and a line about it."""

    player: Player
    picture: Picture
    note: str


class RoundTrip(NamedTuple):
    """A clip at the codec's sampling rate, what the codec makes of it, both spectrograms and a line about them."""

    original: Player
    reconstruction: Player
    picture: Picture
    note: str


def ask(
    loaded: LoadedCheckpoint,
    clip: str | None,
    question: str,
    max_new_tokens: float,
    temperature: float,
    top_p: float,
    seed: float | None,
) -> Reply:
    """The answer to a question about a clip (a file's path). Raises `DataError`, `LengthError`, `codec.audio.AudioError`."""
    question = _text(question, "a question")
    with _clip(clip) as path:
        started = time.perf_counter()
        messages = question_messages(question, {"type": "audio", "path": path})
        (prompt,) = prompt_ids(loaded.processor, [messages], int(max_new_tokens))
        sampling = Sampling(temperature=temperature, top_p=top_p)
        (answer,) = answers(loaded.model, loaded.processor, [prompt], int(max_new_tokens), sampling, _seed(seed))
    vocabulary = loaded.processor.vocabulary
    tokens = sum(vocabulary.first_id <= token < vocabulary.end for token in prompt)
    seconds = tokens / (vocabulary.frame_rate * vocabulary.num_codebooks)
    parts = [f"clip {seconds:.2f} s, {tokens} tokens", f"prompt {len(prompt)} tokens", _since(started)]
    cut = None if answer.stopped else f"cut off after {int(max_new_tokens)} tokens: the model did not end its answer"
    return Reply(answer.text, _note(parts, cut))


def make(
    task: Callable[..., Sound],
    loaded: LoadedCheckpoint,
    text: str,
    max_seconds: float,
    temperature: float,
    top_p: float,
    guidance_scale: float,
    seed: float | None,
) -> Made:
    """What `task` (`alm.generation.speak` or `make_sound`) makes of a text. Raises `DataError`, `LengthError`."""
    text, number, started = _text(text, "a text"), _seed(seed), time.perf_counter()
    options: dict[str, Any] = {"guidance_scale": guidance_scale, "seed": number, "max_seconds": max_seconds}
    options["min_seconds"] = min(0.2, max_seconds / 2)  # half: both are counted in whole frames
    sound = task(
        loaded.model, loaded.processor, text, sampling=Sampling(temperature=temperature, top_p=top_p), **options
    )
    rate = sound.sampling_rate
    parts = [f"{sound.seconds:.2f} s", f"{sound.codes.size} tokens", _since(started), f"seed {number}"]
    cut = f"cut at {max_seconds:g} s, the longest allowed: the model did not end it" if sound.forced_end else None
    picture = spectrograms({"generated": sound.waveform}, rate)
    return Made((rate, pcm16(sound.waveform)), picture, _note(parts, cut))


def round_trip(processor: AudioLanguageProcessor, clip: str | None) -> RoundTrip:
    """A clip (a file's path) through the codec, by way of the ids that the language model sees.

    Raises `DataError`, `LengthError`, `codec.audio.AudioError`.
    """
    codec, vocabulary = processor.require_codec(), processor.vocabulary
    with _clip(clip) as path:
        started = time.perf_counter()
        (codes,) = processor.encode_audio([path])
        original: Waveform = read_audio(path, codec.sampling_rate)
    made = processor.decode_audio(vocabulary.codes_to_ids(codes).tolist())
    bits = codec.tokens_per_second * math.log2(codec.codebook_size)
    used = sum(len(np.unique(row)) for row in codes)
    rate = codec.sampling_rate
    parts = [
        f"{len(original) / rate:.2f} s",
        f"{codes.size} tokens, {codec.tokens_per_second:g} a second, {bits:.0f} bits a second",
        f"{used:,} of {vocabulary.size:,} codes used",
        _since(started),
    ]
    picture = spectrograms({"original": original, "reconstruction": made}, rate)
    return RoundTrip((rate, pcm16(original)), (rate, pcm16(made)), picture, _note(parts))


def longest_seconds(processor: AudioLanguageProcessor) -> float:
    """The longest sound on offer: what the model has room for beside a short text, whole seconds where there is one."""
    vocabulary = processor.vocabulary
    if processor.max_length is None:
        return LONGEST_SECONDS
    room = (processor.max_length - ROOM_FOR_TEXT) / (vocabulary.frame_rate * vocabulary.num_codebooks)
    return min(LONGEST_SECONDS, math.floor(room) if room >= 1 else max(0.1, math.floor(10 * room) / 10))


def about(loaded: LoadedCheckpoint, name: str) -> str:
    """A line on what was loaded."""
    vocabulary, codec = loaded.processor.vocabulary, loaded.processor.require_codec()
    parameters = sum(parameter.numel() for parameter in loaded.model.parameters())
    books = f"{vocabulary.num_codebooks} × " if vocabulary.num_codebooks > 1 else ""
    return (
        f"{name} · {parameters / 1e6:,.1f} M parameters on {loaded.model.device} · codec of {books}"
        f"{vocabulary.codebook_size:,} codes, {codec.tokens_per_second:g} tokens a second, {codec.sampling_rate / 1000:g} kHz · "
        f"vocabulary {vocabulary.hash}"
    )


@contextmanager
def _clip(clip: str | None) -> Iterator[str]:
    if not clip:
        raise DataError("no clip: upload a file or record one first")
    try:
        yield clip
    except ValueError as error:
        raise type(error)(str(error).replace(clip, Path(clip).name)) from error


def _text(text: str | None, what: str) -> str:
    if not (text or "").strip():
        raise DataError(f"the text is empty: type {what} first")
    return str(text).strip()


def _seed(seed: float | None) -> int:
    if seed is None or seed < 0 or seed != int(seed):
        raise DataError(f"a seed is a whole number from 0, got {seed}")
    return int(seed)


def _note(parts: list[str], warning: str | None = None) -> str:
    """Markdown: a line of facts, and a warning below it."""
    return " · ".join(parts) + (f"\n\n⚠ {warning}" if warning else "")


def _since(started: float) -> str:
    return f"computed in {time.perf_counter() - started:.1f} s"
