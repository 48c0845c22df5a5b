"""Greedy answers in text to a batch of prompts: the same answer alone or in any batch."""

from collections.abc import Sequence

from transformers import PreTrainedModel

from alm.generation.tasks import Answer, answers
from alm.processing import AudioLanguageProcessor


def greedy_texts(
    model: PreTrainedModel, processor: AudioLanguageProcessor, prompts: Sequence[Sequence[int]], max_new_tokens: int
) -> list[Answer]:
    """Answers to prompts `(L_i,)` as one batch, in order. The checkpoint's own sampling and penalty settings do not matter."""
    return answers(model, processor, prompts, max_new_tokens, batch_size=len(prompts))
