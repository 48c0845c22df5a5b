"""Log-probabilities of all choices of one question, with the prompt computed once and its key-value cache shared."""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicCache

from alm.scoring.systems.base import ChoiceScores


@torch.inference_mode()
def score_choices(model: PreTrainedModel, prompt_ids: Sequence[int], choices: Sequence[Sequence[int]]) -> ChoiceScores:
    """log p(choice | prompt) of each choice; a choice's ids `(L_i,)` include the end-of-turn token that closes the answer.

    The end of turn belongs to the score: without it "guitar" would never lose to "guitar and drums". The prompt (most of it
    audio) runs through the model once, and vocabulary logits are made of its last position only; the choices then run as one
    batch behind copies of its cache, padded on the right, where causal attention keeps every real token from seeing the pads.
    The softmax is in float32. Equal to one full forward per choice within rounding. Raises `ValueError` for an empty prompt or
    choice.
    """
    if not prompt_ids or not choices or not all(choices):
        raise ValueError("a non-empty prompt and at least one choice, each of at least one token, expected")
    cache = DynamicCache(config=model.config)
    prompt = torch.tensor([list(prompt_ids)], device=model.device)
    # the cache by position: Transformers 5.2x renamed its argument
    output = model(prompt, None, None, cache, use_cache=True, logits_to_keep=1)
    first = output.logits[0, -1].float().log_softmax(-1)  # (V,): the first token of every choice
    sums = [float(first[choice[0]]) for choice in choices]
    longest = max(len(choice) for choice in choices)
    if longest > 1:
        rest = _rest_log_probabilities(model, cache, len(prompt_ids), choices, longest)
        sums = [total + float(more) for total, more in zip(sums, rest, strict=True)]
    return ChoiceScores(tuple(sums), tuple(len(choice) for choice in choices))


def _rest_log_probabilities(
    model: PreTrainedModel, cache: DynamicCache, prefix: int, choices: Sequence[Sequence[int]], longest: int
) -> Tensor:
    """Sums over the second and later tokens of each choice `(choices,)`. Consumes the cache."""
    rows = torch.zeros(len(choices), longest, dtype=torch.long)
    real = torch.zeros(len(choices), longest, dtype=torch.bool)
    for row, choice in enumerate(choices):
        rows[row, : len(choice)] = torch.tensor(list(choice))
        real[row, : len(choice)] = True
    rows, real = rows.to(model.device), real.to(model.device)
    inputs, targets, counted = rows[:, :-1], rows[:, 1:], real[:, 1:]
    past = torch.ones(len(choices), prefix, dtype=torch.bool, device=model.device)
    cache.batch_repeat_interleave(len(choices))
    mask = torch.cat([past, real[:, :-1]], dim=1).long()
    positions = torch.arange(prefix, prefix + longest - 1, device=model.device).expand(len(choices), -1)
    logits = model(inputs, mask, positions, cache, use_cache=True).logits  # (choices, longest - 1, V)
    scores = logits.float().log_softmax(-1).gather(-1, targets.unsqueeze(-1)).squeeze(-1)
    return scores.masked_fill(~counted, 0.0).sum(-1)
