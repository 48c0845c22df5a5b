"""Audio while it is being generated: waveform chunks of a fixed length, each decoded with a bounded context around it.

Decoding the whole span again at every chunk would cost quadratic time, and decoding chunks alone would be heard at their borders. Here
each chunk is decoded with `left` and `right` frames around it, which are thrown away but for half a frame of cross-fade: a chunk costs the
same however long the sound becomes, and waits for `right` frames more than it emits. How near that comes to the offline decode is
measured by benchmarks/generation_speed.py.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from alm.generation.decoding import GrammarDecoder
from alm.generation.sampling import Sampling
from alm.generation.tasks import SPEECH_SAMPLING, prompt_ids, require_waveforms, span_grammar
from alm.processing import AudioLanguageProcessor
from alm.prompts import speech_messages
from codec.base import Codec, Codes, Waveform, decode_window


class StreamingDecoder:
    """Codes in, waveform chunks out; the chunks joined have the length of the offline decode.

    `chunk`, `left` and `right` are in frames. With contexts as long as the clip the chunks are the offline decode.
    """

    def __init__(self, codec: Codec, chunk: int = 25, left: int = 100, right: int = 10) -> None:
        if chunk < 1 or left < 0 or right < 0:
            raise ValueError(f"a chunk needs at least one frame and no negative context, got {chunk}, {left}, {right}")
        self.codec, self.chunk, self.left, self.right = codec, chunk, left, right
        self.hop = round(codec.sampling_rate / codec.frame_rate)
        self._kept: Codes = np.zeros((codec.num_codebooks, 0), dtype=np.int64)
        self._kept_from = self._emitted = 0  # frames
        self._fade = np.linspace(0, 1, self.hop // 2 if right else 0, dtype=np.float32)
        self._before: Waveform | None = None  # how the chunk before goes on

    def push(self, codes: Codes) -> Iterator[Waveform]:
        """Take the next codes `(K, T)`, T ≥ 0; yields every chunk that has its context."""
        self._kept = np.concatenate([self._kept, codes], axis=1)
        while self._end - self._emitted >= self.chunk + self.right:
            yield self._emit(self.chunk)

    def flush(self) -> Iterator[Waveform]:
        """The rest, once the clip has ended."""
        while self._end > self._emitted:
            yield self._emit(min(self.chunk, self._end - self._emitted))

    @property
    def _end(self) -> int:
        return self._kept_from + self._kept.shape[1]

    def _emit(self, frames: int) -> Waveform:
        first = max(0, self._emitted - self.left)
        last = min(self._end, self._emitted + frames + self.right)
        window = self._kept[:, first - self._kept_from : last - self._kept_from]
        waveform = decode_window(self.codec, window, first)
        if len(waveform) != window.shape[1] * self.hop:
            raise ValueError(
                f"the codec decodes {window.shape[1]} frames to {len(waveform)} samples, not {self.hop} a frame: it cannot be streamed"
            )
        start, end = ((self._emitted - first + n) * self.hop for n in (0, frames))
        chunk, after = waveform[start:end].copy(), waveform[end : end + len(self._fade)]
        if self._before is not None and len(self._before) == len(self._fade):  # half a frame of cross-fade: no click
            chunk[: len(self._fade)] *= self._fade
            chunk[: len(self._fade)] += self._before * (1 - self._fade)
        self._before = after
        self._emitted += frames
        keep = max(0, self._emitted - self.left)
        self._kept, self._kept_from = self._kept[:, keep - self._kept_from :], keep
        return chunk


def stream_speech(
    model: Any,
    processor: AudioLanguageProcessor,
    text: str,
    min_seconds: float = 0.2,
    max_seconds: float = 30.0,
    sampling: Sampling = SPEECH_SAMPLING,
    seed: int = 0,
    chunk: int = 25,
    left: int = 100,
    right: int = 10,
) -> Iterator[Waveform]:
    """A text spoken as it is generated: chunks `(S,)` of `chunk` frames; the codes are those of `speak` with the same seed.

    The first chunk comes after `chunk + right` frames. `left` and `right` are the frames that each is decoded with.
    """
    require_waveforms(processor)
    grammar = span_grammar(processor.vocabulary, min_seconds, max_seconds)
    room = grammar.max_span_ids + 1
    prompts = prompt_ids(processor, [speech_messages(text)], room)
    decoder = GrammarDecoder(model, processor.tokenizer, grammar, sampling)
    stream = StreamingDecoder(processor.require_codec(), chunk, left, right)
    frame: list[int] = []
    for step in decoder.steps(prompts, room, [seed]):
        token = step.ids[0]
        if token is not None and grammar.vocabulary.first_id <= token < grammar.vocabulary.end:
            frame.append(token)
        if len(frame) == grammar.vocabulary.num_codebooks:
            yield from stream.push(grammar.vocabulary.ids_to_codes(frame))
            frame = []
    yield from stream.flush()
