"""Rewards for TRL's GRPOTrainer: called with `completions`, `completion_ids` and the columns of the data, one number a turn back.

None means that a row has nothing to be judged by (TRL leaves it out of the sum); a turn that is no answer at all gets the least there is.
"""

from collections.abc import Callable, Sequence
from typing import Any

from alm.generation.grammar import AudioGrammar, text_ids
from alm.preference.validity import loop_share, obeyed
from alm.processing import AudioLanguageProcessor
from alm.scoring.choices import bare_answer, official_match
from alm.scoring.speech.words import WordErrors
from codec.audio import resample
from codec.base import Waveform

Rewards = list[float | None]
Ids = Sequence[Sequence[int]]


def choice_accuracy(
    completions: Sequence[str], answer: Sequence[str | None], choices: Sequence[Sequence[str] | None], **_: Any
) -> Rewards:
    """1 where the official rule of MMAR finds the answer right, cut down as the evaluation does; else 0. None without choices."""
    return [
        None if gold is None or not some else float(official_match(bare_answer(said, some), gold, some))
        for said, gold, some in zip(completions, answer, choices, strict=True)
    ]


class Validity:
    """How valid a turn is, 0 to 1: half for the share of its ids before the first that the grammar forbids, half for ending by itself,
    both times the share of it that is outside its longest repetition loop. 0 for an empty turn.
    """

    __name__ = "validity"

    def __init__(self, grammar: AudioGrammar, processor: AudioLanguageProcessor) -> None:
        self.grammar, self.table = grammar, grammar.table(text_ids(processor.tokenizer, grammar.vocabulary))

    def __call__(self, completion_ids: Ids, **_: Any) -> Rewards:
        """One number a turn."""
        return [self._of(ids) for ids in completion_ids]

    def _of(self, ids: Sequence[int]) -> float:
        if not ids:
            return 0.0
        share, ended = obeyed(ids, self.grammar, self.table)
        return (share + ended) / 2 * (1 - loop_share(ids))


class SpokenWords:
    """1 − word error rate of a spoken text, not under 0; 0 for a turn that is not one decodable span.

    `hear` is a recogniser of waveforms `(S,)` at `sampling_rate`; whichever it is belongs beside the figure.
    """

    __name__ = "wer"

    def __init__(
        self,
        processor: AudioLanguageProcessor,
        hear: Callable[[Waveform], str],
        count: Callable[[str, str], WordErrors],
        sampling_rate: int = 16_000,
    ) -> None:
        self.processor, self.hear, self.count, self.sampling_rate = processor, hear, count, sampling_rate

    def __call__(self, completion_ids: Ids, say: Sequence[str | None], **_: Any) -> Rewards:
        """One number a turn; None where a row has no text to say."""
        return [None if text is None else self._of(ids, text) for ids, text in zip(completion_ids, say, strict=True)]

    def _of(self, ids: Sequence[int], text: str) -> float:
        waveform = heard_waveform(ids, self.processor, self.sampling_rate)
        if waveform is None:
            return 0.0
        found = self.count(text, self.hear(waveform))
        return max(0.0, 1 - found.errors / max(found.words, 1))


class CaptionSimilarity:
    """CLAP's cosine of a made sound and its caption; −1, the least, for a turn that is not one decodable span."""

    __name__ = "clap"

    def __init__(
        self, processor: AudioLanguageProcessor, similarity: Callable[[Waveform, str], float], sampling_rate: int
    ) -> None:
        self.processor, self.similarity, self.sampling_rate = processor, similarity, sampling_rate

    def __call__(self, completion_ids: Ids, caption: Sequence[str | None], **_: Any) -> Rewards:
        """One number a turn; None where a row has no caption."""
        return [
            None if text is None else self._of(ids, text) for ids, text in zip(completion_ids, caption, strict=True)
        ]

    def _of(self, ids: Sequence[int], text: str) -> float:
        waveform = heard_waveform(ids, self.processor, self.sampling_rate)
        return -1.0 if waveform is None else self.similarity(waveform, text)


def heard_waveform(ids: Sequence[int], processor: AudioLanguageProcessor, sampling_rate: int) -> Waveform | None:
    """Waveform `(S,)` at `sampling_rate` of a turn that is one span, its stop token there or not; None of any other turn."""
    vocabulary = processor.vocabulary
    span = list(ids[:-1] if ids and ids[-1] == vocabulary.stop_id else ids)
    if len(span) < 3 or span[0] != vocabulary.start_id or span[-1] != vocabulary.end_id:
        return None
    try:
        vocabulary.ids_to_codes(span[1:-1])
    except ValueError:  # part of a frame, or a token that is not audio
        return None
    return resample(processor.decode_audio(span), processor.require_codec().sampling_rate, sampling_rate)
