"""Greedy answers in text to a batch of prompts: the same answer alone or in any batch."""

from collections.abc import Sequence
from typing import NamedTuple

from transformers import PreTrainedModel

from alm.generation.tasks import answers
from alm.processing import AudioLanguageProcessor


class GeneratedText(NamedTuple):
    """An answer, without special tokens; `stopped` when it was cut at the limit instead of ending its turn."""

    text: str
    stopped: bool


def greedy_texts(
    model: PreTrainedModel, processor: AudioLanguageProcessor, prompts: Sequence[Sequence[int]], max_new_tokens: int
) -> list[GeneratedText]:
    """Answers to prompts `(L_i,)` as one batch, in order. The checkpoint's own sampling and penalty settings do not matter."""
    made = answers(model, processor, prompts, max_new_tokens, batch_size=len(prompts))
    return [GeneratedText(answer.text, not answer.stopped) for answer in made]
