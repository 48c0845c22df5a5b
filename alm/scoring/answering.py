"""Greedy answers in text to a batch of prompts: the same answer alone or in any batch."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from alm.vocabulary import AudioVocabulary, ContractError


class GeneratedText(NamedTuple):
    """An answer, without special tokens; `stopped` when it was cut at the limit instead of ending its turn."""

    text: str
    stopped: bool


class TextOnly(LogitsProcessor):
    """Forbids every id that is not text: audio codes, the tokens around them, and rows of the vocabulary without a token.

    A mask over the vocabulary rather than `suppress_tokens`, which compares every id with each of 16,384 others at every step.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, vocabulary: AudioVocabulary, rows: int) -> None:
        self.forbidden = torch.ones(rows, dtype=torch.bool)
        self.forbidden[sorted(tokenizer.get_vocab().values())] = False
        self.forbidden[vocabulary.first_id : vocabulary.first_id + vocabulary.size] = True
        self.forbidden[[vocabulary.start_id, vocabulary.end_id, vocabulary.placeholder_id]] = True

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Scores `(B, V)` with the forbidden ids at minus infinity."""
        self.forbidden = self.forbidden.to(scores.device)
        return scores.masked_fill(self.forbidden, -torch.inf)


def end_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Every id that ends an answer: the tokenizer's end token and those of the checkpoint's generation config."""
    configured = model.generation_config.eos_token_id if model.generation_config is not None else None
    found = configured if isinstance(configured, Iterable) else [configured]
    return sorted({int(i) for i in (*found, tokenizer.eos_token_id) if i is not None})


class GreedyText:
    """Greedy answers of one model to prompts of any lengths.

    Prompts are padded on the left, with mask and positions that make the pads invisible. The checkpoint's own sampling and
    penalty settings are overridden: greedy means greedy. Raises `ContractError` where neither tokenizer nor checkpoint says
    which token ends a turn.
    """

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, vocabulary: AudioVocabulary) -> None:
        self.model, self.tokenizer, self.ends = model, tokenizer, end_ids(model, tokenizer)
        if not self.ends:
            raise ContractError(
                "neither tokenizer nor generation config names an end-of-turn token: answers would not end"
            )
        self.pad = int(tokenizer.pad_token_id if tokenizer.pad_token_id is not None else self.ends[0])
        self.text_only = LogitsProcessorList([TextOnly(tokenizer, vocabulary, model.config.vocab_size)])

    @torch.inference_mode()
    def __call__(self, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> list[GeneratedText]:
        """Answers to prompts `(L_i,)`, in order."""
        longest = max(len(prompt) for prompt in prompts)
        ids = torch.full((len(prompts), longest), self.pad, dtype=torch.long)
        mask = torch.zeros(len(prompts), longest, dtype=torch.long)
        for row, prompt in enumerate(prompts):
            ids[row, longest - len(prompt) :] = torch.tensor(list(prompt))
            mask[row, longest - len(prompt) :] = 1
        output = self.model.generate(
            input_ids=ids.to(self.model.device),
            attention_mask=mask.to(self.model.device),
            generation_config=self._config(max_new_tokens),
            logits_processor=self.text_only,
        )
        return [_answer(row.tolist(), self.tokenizer, self.ends) for row in output[:, longest:]]

    def _config(self, max_new_tokens: int) -> GenerationConfig:
        # what is left unset here would be taken from the checkpoint: Qwen3's own samples, others carry penalties
        return GenerationConfig(
            do_sample=False,
            num_beams=1,
            temperature=1.0,
            top_k=50,
            top_p=1.0,
            repetition_penalty=1.0,
            no_repeat_ngram_size=0,
            max_new_tokens=max_new_tokens,
            eos_token_id=self.ends,
            pad_token_id=self.pad,
        )


def _answer(ids: list[int], tokenizer: PreTrainedTokenizerBase, ends: Sequence[int]) -> GeneratedText:
    end = next((position for position, i in enumerate(ids) if i in ends), None)
    text = tokenizer.decode(ids[:end], skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return GeneratedText(text, stopped=end is None)
