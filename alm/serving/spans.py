"""Which ids may come next in a reply with audio: the rule that every grammar and logits processor of this folder follows.

`alm.serving.grammars` writes it for engines that read grammars, `alm.serving.vllm_grammar` applies it to logits; tests hold them equal.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from alm.data.example import DataError
from alm.vocabulary import AudioVocabulary

Mode = Literal["speech", "mixed", "text"]
MODES: tuple[Mode, ...] = ("speech", "mixed", "text")


class Allowed(NamedTuple):
    """What may come next: ids in any of the half-open `ranges`; `stop` where the stop tokens may too."""

    ranges: tuple[range, ...]
    stop: bool


@dataclass(frozen=True)
class ReplyRule:
    """The form of a reply: `speech` is one audio span and nothing else, `text` has no audio, `mixed` is text and spans in any order.

    A span is the start token, `minimum` to `maximum` frames (both included; a frame is one code of each codebook in turn) and the end
    token, which is the only choice at `maximum`. Text is every id below the audio vocabulary's. Raises `DataError` on impossible limits.
    """

    vocabulary: AudioVocabulary
    mode: Mode = "speech"
    minimum: int = 1
    maximum: int = 1500

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise DataError(f"a reply's mode is {', '.join(MODES)}; got {self.mode!r}")
        if not 0 <= self.minimum <= self.maximum or self.maximum == 0:
            raise DataError(
                f"a span needs 0 ≤ minimum ≤ maximum and a maximum above 0, got {self.minimum} and {self.maximum} frames"
            )

    @classmethod
    def of_seconds(
        cls, vocabulary: AudioVocabulary, mode: Mode = "speech", shortest: float = 0.02, longest: float = 30.0
    ) -> "ReplyRule":
        """The rule with limits in seconds, both kept: the shortest rounded up to whole frames, the longest down."""
        if not (math.isfinite(shortest) and math.isfinite(longest)):
            raise DataError(f"a span's limits are finite seconds, got {shortest} and {longest}")
        # 1e-6: 0.58 s × 50 is 28.999999999999996 frames
        least = math.ceil(shortest * vocabulary.frame_rate - 1e-6)
        return cls(vocabulary, mode, least, math.floor(longest * vocabulary.frame_rate + 1e-6))

    def allowed(self, ids: Sequence[int]) -> Allowed:
        """What may follow `ids`, the prompt's included: a prompt that ends inside a span is gone on with.

        In `speech`, a span that ends within `ids` ends the reply, so leave finished spans of the prompt out.
        """
        vocabulary = self.vocabulary
        inside = self._codes_since_start(ids)
        if inside is not None:
            return Allowed(self._inside(inside), False)
        if self.mode == "speech":
            ended = vocabulary.end_id in ids
            return Allowed(() if ended else (_only(vocabulary.start_id),), ended)
        text = range(vocabulary.start_id)
        return Allowed((text, _only(vocabulary.start_id)) if self.mode == "mixed" else (text,), True)

    def _codes_since_start(self, ids: Sequence[int]) -> int | None:
        """Number of codes after a start token that no end token follows; None outside a span."""
        first = self.vocabulary.first_id
        for count, token in enumerate(reversed(ids)):
            if token == self.vocabulary.start_id:
                return count
            if not first <= token < first + self.vocabulary.size:
                return None
        return None

    def _inside(self, count: int) -> tuple[range, ...]:
        frames, book = divmod(count, self.vocabulary.num_codebooks)
        size, end = self.vocabulary.codebook_size, _only(self.vocabulary.end_id)
        if frames >= self.maximum:
            return (end,)
        first = self.vocabulary.first_id + book * size
        codes = range(first, first + size)
        return (codes, end) if book == 0 and frames >= self.minimum else (codes,)


def _only(token: int) -> range:
    return range(token, token + 1)
