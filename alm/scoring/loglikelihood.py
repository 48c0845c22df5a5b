"""Log-probabilities of all choices of one question, with the prompt computed once and its key-value cache shared."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicCache

from alm.scoring.systems.base import ChoiceScores


@torch.inference_mode()
def score_choices(
    model: PreTrainedModel, prompt: Sequence[int] | Mapping[str, Tensor], choices: Sequence[Sequence[int]]
) -> ChoiceScores:
    """log p(choice | prompt) of each choice; a choice's ids `(L_i,)` include the end-of-turn token that closes the answer.

    `prompt` is ids, or all that `forward` takes for one prompt of a model that also takes features, `input_ids` `(1, L)` among it.
    The end of turn belongs to the score: without it "guitar" would never lose to "guitar and drums". The prompt (most of it
    audio) runs through the model once, and vocabulary logits are made of its last position only (where the class allows it); the
    choices then run as one batch behind copies of its cache, padded on the right, where causal attention keeps every real token
    from seeing the pads. The softmax is in float32. Equal to one
    full forward per choice within rounding. Raises `ValueError` for an empty prompt or choice.
    """
    given: dict[str, Any] = dict(prompt) if isinstance(prompt, Mapping) else {"input_ids": torch.tensor([list(prompt)])}
    length = given["input_ids"].shape[-1]
    if not length or not choices or not all(choices):
        raise ValueError("a non-empty prompt and at least one choice, each of at least one token, expected")
    given["input_ids"] = given["input_ids"].to(model.device)
    names = inspect.signature(model.forward).parameters
    cache = DynamicCache(config=model.config)
    shared = {"cache" if "cache" in names else "past_key_values": cache}  # Transformers 5.24 renamed it
    last = {"logits_to_keep": 1} if "logits_to_keep" in names else {}
    output = model(**given, **shared, **last, use_cache=True)
    first = output.logits[0, -1].float().log_softmax(-1)  # (V,): the first token of every choice
    sums = [float(first[choice[0]]) for choice in choices]
    if max(len(choice) for choice in choices) > 1:
        rest = _rest_log_probabilities(model, cache, shared, length, choices)
        sums = [total + float(more) for total, more in zip(sums, rest, strict=True)]
    return ChoiceScores(tuple(sums), tuple(len(choice) for choice in choices))


def _rest_log_probabilities(
    model: PreTrainedModel, cache: DynamicCache, shared: dict[str, Any], prefix: int, choices: Sequence[Sequence[int]]
) -> Tensor:
    """Sums over the second and later tokens of each choice `(choices,)`. Consumes the cache, which `shared` holds by its name."""
    longest = max(len(choice) for choice in choices)
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
    # given, as Qwen-Omni would count them from the whole mask
    positions = torch.arange(prefix, prefix + longest - 1, device=model.device).expand(len(choices), -1)
    output = model(input_ids=inputs, attention_mask=mask, position_ids=positions, **shared, use_cache=True)
    logits = output.logits  # (choices, longest - 1, V)
    scores = logits.float().log_softmax(-1).gather(-1, targets.unsqueeze(-1)).squeeze(-1)
    return scores.masked_fill(~counted, 0.0).sum(-1)
