"""Generation under an audio grammar, with a language-model head that computes only the rows that may be drawn.

Inside a span only the codes and the end token may come. Their rows are one stretch of the head's matrix, a view and no copy: at
Qwen3-0.6B's shape 16,386 of 168,064 rows, so that a step reads about a quarter less memory. The tokens are those of the full head
under the same grammar (a test holds them equal), greedy or sampled. Outside spans, and in batches that are partly outside, the full
head is used.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase

from alm.generation.grammar import AudioGrammar, TurnState, text_ids
from alm.generation.sampling import GREEDY, Sampler, Sampling


class NoNumberError(ValueError):
    """The model's scores are not finite numbers: nothing can be drawn from them, and the grammar is powerless."""


class Turn(NamedTuple):
    """One generated assistant turn."""

    ids: list[int]
    """What was generated, the stop token included where it came."""
    forced_ends: int
    """Spans that ended because they were as long as they may be, and not because the model ended them."""
    stopped: bool
    """Whether the stop token came within the most tokens allowed."""


class GrammarHead:
    """Scores of what may come next, from the last hidden states, over as few rows of the head as hold it."""

    def __init__(self, head: nn.Module, grammar: AudioGrammar, texts: Tensor, sliced: bool = True) -> None:
        if sliced and not _is_plain_linear(head):
            raise ValueError(
                f"the output head is {type(head).__name__}, and only a plain linear layer without bias can be sliced: merge an adapter "
                "first (load_checkpoint does, and alm.adapters.merge), or compute all of it with sliced=False"
            )
        self.head, self.vocabulary, self.sliced = head, grammar.vocabulary, sliced
        self.weight = next(head.parameters())
        self.forbidden = ~grammar.table(texts.to(self.weight.device))

    def rows(self, phases: Tensor) -> slice:
        """The stretch of rows that holds everything allowed in these phases."""
        K, voc = self.vocabulary.num_codebooks, self.vocabulary
        highest = int(phases.max())
        if not self.sliced or highest > K + 1:
            return slice(0, voc.rows)
        lowest = int(phases.min())
        if lowest == highest and 0 < lowest < K:  # all rows at one later codebook
            first = voc.first_id + lowest * voc.codebook_size
            return slice(first, first + voc.codebook_size)
        books = K if bool(((phases > 0) & (phases < K)).any()) else 1
        return slice(voc.end_id, voc.first_id + books * voc.codebook_size)

    def __call__(self, hidden: Tensor, phases: Tensor, guidance_scale: float = 1.0) -> tuple[Tensor, int]:
        """Scores `(B, n)` and the id of their first column; `hidden` `(B, D)`, or `(2 B, D)` with the unconditional rows last."""
        rows = self.rows(phases)
        scores = (F.linear(hidden, self.weight[rows]) if self.sliced else self.head(hidden)).float()
        if guidance_scale != 1.0:
            conditional, unconditional = scores.chunk(2)
            scores = unconditional + guidance_scale * (conditional - unconditional)
        return scores.masked_fill(self.forbidden[phases][:, rows], -torch.inf), rows.start


def _is_plain_linear(head: nn.Module) -> bool:
    """Whether its weight says all: no adapter around it, no quantised subclass, no bias."""
    return type(head) is nn.Linear and head.bias is None


class Prompts(NamedTuple):
    """A batch padded on the left: `ids` and `positions` `(B, L)`, `mask` `(B, L)` or None where nothing is padded."""

    ids: Tensor
    positions: Tensor
    mask: Tensor | None

    @classmethod
    def of(cls, prompts: Sequence[Sequence[int]], pad: int, device: torch.device) -> "Prompts":
        """From prompts `(L_i,)`. Raises `ValueError` where one is empty."""
        if not prompts or any(not len(prompt) for prompt in prompts):
            raise ValueError("each prompt needs at least one token")
        longest = max(len(prompt) for prompt in prompts)
        ids = torch.full((len(prompts), longest), pad)
        mask = torch.zeros(len(prompts), longest, dtype=torch.long)
        for row, prompt in enumerate(prompts):
            ids[row, longest - len(prompt) :] = torch.tensor(list(prompt))
            mask[row, longest - len(prompt) :] = 1
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        ragged = bool((mask == 0).any())
        return cls(ids.to(device), positions.to(device), mask.to(device) if ragged else None)

    def following(self, ids: Tensor) -> "Prompts":
        """The next step's input: ids `(B,)` behind these, which are in the cache."""
        mask = None if self.mask is None else F.pad(self.mask, (0, 1), value=1)
        return Prompts(ids[:, None], self.positions[:, -1:] + 1, mask)


class Step(NamedTuple):
    """One step of a batch: the next id of each row, None where a row has stopped, and whether an end was forced."""

    ids: list[int | None]
    forced: list[bool]


class GrammarDecoder:
    """Generates assistant turns under a grammar: a model, how its ids are drawn, and over which rows of its head.

    `guidance_scale` above 1 is classifier-free guidance between a language model's scores, `u + s (c − u)` (Sanchez et al. 2023, arXiv
    2306.17806, eq. 7), against negative prompts. `sliced=False` computes the whole head: slower, the same tokens.
    Raises `ValueError` on an adapter that is not merged.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        grammar: AudioGrammar,
        sampling: Sampling = GREEDY,
        guidance_scale: float = 1.0,
        sliced: bool = True,
    ) -> None:
        self.model, self.grammar, self.sampling, self.guidance_scale = model, grammar, sampling, guidance_scale
        texts = text_ids(tokenizer, grammar.vocabulary)
        self.head = GrammarHead(model.get_output_embeddings(), grammar, texts, sliced)

    def turns(
        self,
        prompts: Sequence[Sequence[int]],
        max_new_tokens: int,
        seeds: Sequence[int] | None = None,
        negative_prompts: Sequence[Sequence[int]] | None = None,
    ) -> list[Turn]:
        """The turns to prompts `(L_i,)`, in order. Arguments as `steps`."""
        rows: list[list[int]] = [[] for _ in prompts]
        forced = [0] * len(prompts)
        for step in self.steps(prompts, max_new_tokens, seeds, negative_prompts):
            for row, token in enumerate(step.ids):
                rows[row] += [] if token is None else [token]
                forced[row] += step.forced[row]
        stop = self.grammar.vocabulary.stop_id
        return [Turn(ids, count, ids[-1:] == [stop]) for ids, count in zip(rows, forced, strict=True)]

    @torch.inference_mode()
    def steps(
        self,
        prompts: Sequence[Sequence[int]],
        max_new_tokens: int,
        seeds: Sequence[int] | None = None,
        negative_prompts: Sequence[Sequence[int]] | None = None,
    ) -> Iterator[Step]:
        """The turns to prompts `(L_i,)` step by step, until all have stopped or have `max_new_tokens`.

        Row `i` draws from `seeds[i]` (default: `i`). `negative_prompts`, one per prompt, go with a `guidance_scale`. Raises
        `NoNumberError` where the scores of the first step are none (broken weights; later steps are not looked at).
        """
        guided = self.guidance_scale != 1.0
        if guided != (negative_prompts is not None) or (guided and len(negative_prompts or []) != len(prompts)):
            raise ValueError("a guidance_scale other than 1 and negative_prompts, one per prompt, go together")
        device, voc = self.model.device, self.grammar.vocabulary
        batch = Prompts.of([*prompts, *(negative_prompts or [])], voc.pad_id, device)
        state = TurnState.of(self.grammar, batch.ids[: len(prompts)], batch.ids.shape[1])
        draw = Sampler(self.sampling, range(len(prompts)) if seeds is None else seeds)
        cache, alive = DynamicCache(config=self.model.config), torch.ones(len(prompts), dtype=torch.bool, device=device)
        for turn in range(max_new_tokens):
            # by position: Transformers renamed the cache's argument
            output = self.model.get_decoder()(batch.ids, batch.mask, batch.positions, cache, use_cache=True)
            phases = state.phases()
            # rows that have stopped go along with the first that has not, so that they do not ask for the full head
            scores, first = self.head(
                output.last_hidden_state[:, -1], torch.where(alive, phases, phases[alive][0]), self.guidance_scale
            )
            if not turn and not bool((scores < torch.inf).all()):  # false of NaN, too
                raise NoNumberError(
                    "the model's scores are NaN or infinite; are its weights broken, or too large for its dtype?"
                )
            ids = torch.where(alive, draw(scores) + first, voc.pad_id)
            yield Step(
                [token if live else None for token, live in zip(ids.tolist(), alive.tolist(), strict=True)],
                (state.forced_end() & alive).tolist(),
            )
            state.advance(ids)
            alive = alive & (ids != voc.stop_id)
            if not bool(alive.any()):
                return
            batch = batch.following(ids.repeat(2) if guided else ids)
