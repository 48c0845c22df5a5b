"""The grammar of replies as a vLLM logits processor: `vllm serve … --logits-processors alm.serving.vllm_grammar:AudioReplies`.

A request asks for it with `vllm_xargs` (offline: `SamplingParams(extra_args=…)`), every key optional, and at least one given; requests
without are left alone:

    {"audio_spans": 1, "audio_text": 0, "audio_min_seconds": 0.5, "audio_max_seconds": 20}

The id map is the contract in the model's `config.json`: vLLM does not start where there is none or its hash does not fit its fields.
"""

from typing import Any

import torch
from torch import Tensor
from vllm import SamplingParams
from vllm.config import VllmConfig
from vllm.tokenizers import cached_tokenizer_from_config
from vllm.v1.sample.logits_processor import AdapterLogitsProcessor

from alm.data.example import DataError
from alm.generation.grammar import AudioGrammar, TurnState, text_ids
from alm.serving.grammars import reply_grammar
from alm.vocabulary import AudioVocabulary, ContractError

OPTIONS = ("spans", "text", "min_seconds", "max_seconds")
PREFIX = "audio_"


class AudioReplies(AdapterLogitsProcessor):
    """Forbids, for each request that asks, what `alm.generation.grammar.AudioGrammar` does not allow next."""

    def __init__(self, vllm_config: VllmConfig, device: torch.device, is_pin_memory: bool) -> None:
        super().__init__(vllm_config, device, is_pin_memory)
        config = vllm_config.model_config
        stored = getattr(config.hf_config, "audio_vocabulary", None)
        if stored is None:
            raise ContractError(f"{config.model} has no audio vocabulary; serve it without this logits processor")
        self.vocabulary = AudioVocabulary.from_dict(dict(stored))
        self.device = device
        self.text = text_ids(cached_tokenizer_from_config(config), self.vocabulary)
        self.forbidden: dict[AudioGrammar, Tensor] = {}

    @classmethod
    def validate_params(cls, sampling_params: SamplingParams) -> None:
        """Raises `DataError`, which vLLM answers with status 400, on an unknown `audio_…` key or one that is no number."""
        for name, value in _options(sampling_params).items():
            if name not in OPTIONS:
                raise DataError(f"{PREFIX}{name} is unknown; accepted are {', '.join(PREFIX + o for o in OPTIONS)}")
            if not isinstance(value, int | float):
                raise DataError(f"{PREFIX}{name} is a number, got {value!r}")

    def is_argmax_invariant(self) -> bool:
        """False: the likeliest id may be a forbidden one."""
        return False

    def new_req_logits_processor(self, params: SamplingParams) -> "_Reply | None":
        """The grammar of one request; None where it does not ask for one."""
        options = _options(params)
        if not options:
            return None
        grammar = reply_grammar(self.vocabulary, **options)
        if grammar not in self.forbidden:
            self.forbidden[grammar] = ~grammar.table(self.text).to(self.device)
        return _Reply(grammar, self.forbidden[grammar])


class _Reply:
    """One request: `forbidden` `(phases, V)` are the ids that each phase of the grammar excludes."""

    def __init__(self, grammar: AudioGrammar, forbidden: Tensor) -> None:
        self.grammar, self.forbidden = grammar, forbidden
        self.context: list[int] | None = None

    def __call__(self, prompt_ids: list[int], output_ids: list[int], logits: Tensor) -> Tensor:
        """Logits `(V,)` with the forbidden ids at minus infinity."""
        if self.context is None:
            # one id tells whether the prompt ends inside a span; the whole prompt would be read again at every step
            marks = (self.grammar.vocabulary.start_id, self.grammar.vocabulary.end_id)
            self.context = [next((token for token in reversed(prompt_ids) if token in marks), marks[1])]
        ids = torch.tensor([[*self.context, *output_ids]])
        phase = int(TurnState.of(self.grammar, ids, prompt_length=1).phases()[0])
        return logits.masked_fill_(self.forbidden[phase], -torch.inf)


def _options(params: SamplingParams) -> dict[str, Any]:
    given = params.extra_args or {}
    return {name.removeprefix(PREFIX): value for name, value in given.items() if name.startswith(PREFIX)}
