"""Our own checkpoints as a system: each clip encoded once, log-likelihoods with the prompt shared."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from alm.checkpoint import load_checkpoint
from alm.data.example import Content, Message
from alm.encoding import IGNORED
from alm.generation.tasks import require_room
from alm.processing import AudioLanguageProcessor, LengthError
from alm.prompts import question_messages
from alm.scoring.answering import greedy_texts
from alm.scoring.loglikelihood import score_choices
from alm.scoring.manifest import weights_digest
from alm.scoring.systems.base import ChoiceScores, GeneratedText, Refused, Request
from alm.vocabulary import ContractError, digest
from codec.audio import AudioError
from codec.base import Codes


class CheckpointSystem:
    """A checkpoint of ours behind `alm.scoring.systems.base.System` and `ChoiceScorer`."""

    def __init__(self, model: PreTrainedModel, processor: AudioLanguageProcessor, label: str = "checkpoint") -> None:
        self.model, self.processor, self.label = model.eval(), processor, label
        self._codes: dict[Path, Codes | Refused] = {}  # a few kilobytes a clip, asked for again by every control

    @classmethod
    def load(
        cls, reference: str, codec: str | None = None, device: str = "cpu", dtype: torch.dtype | None = None
    ) -> "CheckpointSystem":
        """A local folder or a Hub id; raises as `alm.checkpoint.load_checkpoint`."""
        model, processor = load_checkpoint(reference, codec=codec, device=device, dtype=dtype)
        return cls(model, processor, Path(reference).name)

    @property
    def identity(self) -> dict[str, Any]:
        """Weights and type in memory, tokenizer, and the vocabulary contract with its codec and chat template."""
        return {
            "weights": weights_digest(self.model),
            "dtype": str(self.model.dtype),
            "tokenizer": digest(self.processor.tokenizer.backend_tokenizer.to_str()),
            "vocabulary": self.processor.vocabulary.hash,
            "codec": self.processor.vocabulary.codec_fingerprint,
        }

    def answer(self, batch: Sequence[Request], max_new_tokens: int) -> list[GeneratedText | Refused]:
        """Greedy answers in text, as one batch."""
        prompts = [
            prompt if isinstance(prompt, Refused) else self._room(prompt, max_new_tokens, "--max_new_tokens") or prompt
            for prompt in self._prompts(batch)
        ]
        ids = [prompt for prompt in prompts if not isinstance(prompt, Refused)]
        found = iter(greedy_texts(self.model, self.processor, ids, max_new_tokens) if ids else [])
        return [p if isinstance(p, Refused) else GeneratedText(*next(found), prompt_tokens=len(p)) for p in prompts]

    def score(self, batch: Sequence[Request]) -> list[ChoiceScores | Refused]:
        """Log-probabilities of the choices; each request's prompt runs through the model once."""
        return [
            prompt if isinstance(prompt, Refused) else self._score(request, prompt)
            for request, prompt in zip(batch, self._prompts(batch), strict=True)
        ]

    def _score(self, request: Request, prompt: list[int]) -> ChoiceScores | Refused:
        try:
            choices = self._choice_ids(request)
        except LengthError as error:  # an answer that alone is longer than the model takes
            return Refused(str(error))
        room = self._room(prompt, max(map(len, choices)), "the length of its choices")
        return room or score_choices(self.model, prompt, choices)

    def _prompts(self, batch: Sequence[Request]) -> Iterator[list[int] | Refused]:
        """Ids of the requests in order; nothing is cut to fit."""
        self._encode([request.audio for request in batch if request.audio is not None])
        for request in batch:
            codes = self._codes[request.audio] if request.audio is not None else None
            if isinstance(codes, Refused):
                yield codes
                continue
            try:
                clip: Content | None = None if codes is None else {"type": "audio", "codes": codes}
                yield self.processor.encode_messages(question_messages(request.text, clip), add_generation_prompt=True)
            except LengthError as error:
                yield Refused(str(error))

    def _room(self, prompt: list[int], tokens: int, less: str) -> Refused | None:
        try:
            require_room(self.processor, len(prompt), tokens, less)
        except LengthError as error:
            return Refused(str(error))
        return None

    def _choice_ids(self, request: Request) -> list[list[int]]:
        """The ids on which the model would have been trained for each answer, the end of turn included where `closed`."""
        prompt = question_messages(request.text)  # the clip changes neither an answer's ids nor the law below
        asked = self.processor.encode_messages(prompt, add_generation_prompt=True)
        choices = []
        for choice in request.choices:
            answer: Message = {"role": "assistant", "content": [{"type": "text", "text": choice}]}
            trained = self.processor.training_ids([*prompt, answer])
            if list(trained.input_ids[: len(asked)]) != asked:
                raise ContractError(
                    "the chat template writes another prompt for training than for generation: the model would be asked in a form "
                    "that it has never seen. Compare the checkpoint's chat template with the one that it was trained with."
                )
            ids = [token for token, label in zip(trained.input_ids, trained.labels, strict=True) if label != IGNORED]
            choices.append(ids if request.closed else ids[:-1])
        return choices

    def _encode(self, paths: Sequence[Path]) -> None:
        """Codes of the clips not met before, as one batch; one that cannot be decoded is refused, and the others are kept."""
        new = [path for path in dict.fromkeys(paths) if path not in self._codes]
        try:
            self._codes |= dict(zip(new, self.processor.encode_audio(new), strict=True)) if new else {}
        except (AudioError, LengthError):
            for path in new:
                try:
                    self._codes[path] = self.processor.encode_audio([path])[0]
                except (AudioError, LengthError) as error:
                    self._codes[path] = Refused(str(error))
