"""Our own checkpoints as a system: each clip encoded once, log-likelihoods with the prompt shared."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from alm.checkpoint import load_checkpoint
from alm.processing import AudioLanguageProcessor
from alm.scoring.answering import greedy_texts
from alm.scoring.loglikelihood import score_choices
from alm.scoring.manifest import weights_digest
from alm.scoring.systems.base import ChoiceScores, GeneratedText, Refused, Request
from alm.scoring.systems.request_ids import RequestIds


class CheckpointSystem:
    """A checkpoint of ours behind `alm.scoring.systems.base.System` and `ChoiceScorer`."""

    def __init__(self, model: PreTrainedModel, processor: AudioLanguageProcessor, label: str = "checkpoint") -> None:
        self.model, self.processor, self.label = model.eval(), processor, label
        self._ids = RequestIds(processor)

    @classmethod
    def load(
        cls, reference: str, codec: str | None = None, device: str = "cpu", dtype: torch.dtype | None = None
    ) -> "CheckpointSystem":
        """A local folder or a Hub id; raises as `alm.checkpoint.load_checkpoint`."""
        model, processor = load_checkpoint(reference, codec=codec, device=device, dtype=dtype)
        return cls(model, processor, Path(reference).name)

    @property
    def identity(self) -> dict[str, Any]:
        """Weights and type in memory, and what decides the ids."""
        return {"weights": weights_digest(self.model), "dtype": str(self.model.dtype), **self._ids.identity}

    def answer(self, batch: Sequence[Request], max_new_tokens: int) -> list[GeneratedText | Refused]:
        """Greedy answers in text, as one batch."""
        prompts = self._ids.asked(batch, max_new_tokens)
        ids = [prompt for prompt in prompts if not isinstance(prompt, Refused)]
        found = iter(greedy_texts(self.model, self.processor, ids, max_new_tokens) if ids else [])
        return [p if isinstance(p, Refused) else GeneratedText(*next(found), prompt_tokens=len(p)) for p in prompts]

    def score(self, batch: Sequence[Request]) -> list[ChoiceScores | Refused]:
        """Log-probabilities of the choices; each request's prompt runs through the model once."""
        return [ids if isinstance(ids, Refused) else score_choices(self.model, *ids) for ids in self._ids.scored(batch)]
