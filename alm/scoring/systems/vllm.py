"""A plain checkpoint of ours in vLLM: the ids that Transformers would read, answered by continuous batching.

Likelihoods are read one context at a time (the prompt, and behind it the beginnings of the choices), each as the first token of an
answer: vLLM's cache of prefixes computes the clip once for all of them, which its `prompt_logprobs` does not use.
"""

from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig

from alm.adapters import is_adapter
from alm.checkpoint import load_processor
from alm.checkpoint_files import local_folder
from alm.data.example import DataError
from alm.processing import AudioLanguageProcessor
from alm.scoring.manifest import stored_weights_digest
from alm.scoring.systems.base import ChoiceScores, GeneratedText, Refused, Request
from alm.scoring.systems.request_ids import ChoiceIds, RequestIds

GRAMMAR = "alm.serving.vllm_grammar:AudioReplies"
TEXT_ALONE = {"audio_spans": 0, "audio_text": 1}
"""No audio token may come in an answer, as in `alm.generation.tasks.answers`."""
TYPES = ("float32", "bfloat16", "float16")

Context = tuple[int, ...]
"""The place of a request, and what stands behind its prompt of a choice."""


class VllmSystem:
    """A checkpoint of ours behind `alm.scoring.systems.base.System` and `ChoiceScorer`; `engine` is a `vllm.LLM`."""

    def __init__(self, engine: Any, processor: AudioLanguageProcessor, label: str, identity: dict[str, Any]) -> None:
        self.engine, self.processor, self.label, self.identity = engine, processor, label, identity
        self._ids = RequestIds(processor)

    @classmethod
    def load(
        cls, reference: str, codec: str | None = None, device: str = "cpu", options: Mapping[str, Any] | None = None
    ) -> "VllmSystem":
        """A local folder or a Hub id. `device` is the codec's, vLLM has its own; `options` go to `vllm.LLM`.

        Computes in the type that the weights are stored in. Raises as `alm.checkpoint.load_checkpoint`, and `DataError` for an adapter
        and without vLLM.
        """
        if find_spec("vllm") is None:
            raise DataError("--backend vllm needs vLLM, best in an environment of its own: docs/serving.md")
        folder = local_folder(reference)
        if is_adapter(folder):
            raise DataError(
                f"{reference} is an adapter; vLLM takes the plain checkpoint that its training has written beside it"
            )
        processor = load_processor(folder, codec, device)
        stored = str(AutoConfig.from_pretrained(folder).dtype).removeprefix("torch.")
        # vLLM's own choice for float32 weights is half precision
        settings = {"dtype": stored, "max_model_len": processor.max_length, **(options or {})}
        if settings["dtype"] not in TYPES:
            raise DataError(f"vLLM's dtype is {settings['dtype']!r}; give one of {', '.join(TYPES)} in --vllm_options")
        from vllm import LLM

        engine = LLM(str(folder), logits_processors=[GRAMMAR], **settings)
        identity = {
            "weights": stored_weights_digest(folder, getattr(torch, settings["dtype"])),
            "dtype": f"torch.{settings['dtype']}",
            **RequestIds(processor).identity,
            "engine": {"vllm": version("vllm"), **(options or {})},
        }
        return cls(engine, processor, Path(reference).name, identity)

    def answer(self, batch: Sequence[Request], max_new_tokens: int) -> list[GeneratedText | Refused]:
        """Greedy answers in text."""
        from vllm import SamplingParams

        stop = self.processor.vocabulary.stop_id
        settings = SamplingParams(
            temperature=0.0,
            max_tokens=max_new_tokens,
            stop_token_ids=[stop],
            ignore_eos=True,  # of several end tokens the template's own ends a turn
            detokenize=False,
            extra_args=TEXT_ALONE,
        )
        prompts = self._ids.asked(batch, max_new_tokens)
        said = iter(self._generate([ids for ids in prompts if not isinstance(ids, Refused)], settings))
        return [ids if isinstance(ids, Refused) else self._text(next(said), len(ids)) for ids in prompts]

    def score(self, batch: Sequence[Request]) -> list[ChoiceScores | Refused]:
        """Log-probabilities of the choices, by the model's whole vocabulary."""
        from vllm import SamplingParams

        found = self._ids.scored(batch)
        contexts: dict[Context, set[int]] = {}
        prompts: list[list[int]] = []
        for place, ids in enumerate(found):
            if isinstance(ids, Refused):
                continue
            for context, token in _steps(place, ids):
                if context not in contexts:
                    contexts[context] = set()
                    prompts.append([*ids.prompt, *context[1:]])
                contexts[context].add(token)
        settings = [
            SamplingParams(temperature=0.0, max_tokens=1, detokenize=False, logprob_token_ids=sorted(tokens))
            for tokens in contexts.values()
        ]
        outputs = self._generate(prompts, settings)
        known = {context: output.logprobs[0] for context, output in zip(contexts, outputs, strict=True)}
        return [ids if isinstance(ids, Refused) else _scores(place, ids, known) for place, ids in enumerate(found)]

    def _generate(self, prompts: Sequence[list[int]], settings: Any) -> list[Any]:
        asked = [{"prompt_token_ids": ids} for ids in prompts]
        return [done.outputs[0] for done in self.engine.generate(asked, settings, use_tqdm=False)] if asked else []

    def _text(self, output: Any, prompt_tokens: int) -> GeneratedText:
        text = self.processor.tokenizer.decode(output.token_ids, skip_special_tokens=True)
        return GeneratedText(text, output.finish_reason == "stop", prompt_tokens)


def _steps(place: int, ids: ChoiceIds) -> Iterator[tuple[Context, int]]:
    """Every token of the choices with its context."""
    for choice in ids.choices:
        for end, token in enumerate(choice):
            yield (place, *choice[:end]), token


def _scores(place: int, ids: ChoiceIds, known: Mapping[Context, Any]) -> ChoiceScores:
    steps = _steps(place, ids)
    lengths = tuple(map(len, ids.choices))
    sums = tuple(sum(known[context][token].logprob for context, token in islice(steps, length)) for length in lengths)
    return ChoiceScores(sums, lengths)
