"""Requests as the ids that a checkpoint of ours reads: each clip encoded once, nothing cut to fit. Needs no weights."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from alm.data.example import Content, Message
from alm.encoding import IGNORED
from alm.generation.tasks import require_room
from alm.processing import AudioLanguageProcessor, LengthError
from alm.prompts import question_messages
from alm.scoring.systems.base import Refused, Request
from alm.vocabulary import ContractError, digest
from codec.audio import AudioError
from codec.base import Codes


class ChoiceIds(NamedTuple):
    """A prompt `(L,)`, and each choice `(L_i,)` as the model would have been trained on it, with its end of turn where `closed`."""

    prompt: list[int]
    choices: list[list[int]]


class RequestIds:
    """Turns requests into ids; the codes of every clip met are kept."""

    def __init__(self, processor: AudioLanguageProcessor) -> None:
        self.processor = processor
        self._codes: dict[Path, Codes | Refused] = {}  # a few kilobytes a clip, asked for again by every control

    @property
    def identity(self) -> dict[str, Any]:
        """What decides the ids: the tokenizer, and the vocabulary contract with its codec and chat template."""
        vocabulary = self.processor.vocabulary
        tokenizer = digest(self.processor.tokenizer.backend_tokenizer.to_str())
        return {"tokenizer": tokenizer, "vocabulary": vocabulary.hash, "codec": vocabulary.codec_fingerprint}

    def asked(self, batch: Sequence[Request], max_new_tokens: int) -> list[list[int] | Refused]:
        """Prompts `(L_i,)` in order, refused where an answer of `max_new_tokens` has no room."""
        return [
            prompt if isinstance(prompt, Refused) else self._room(prompt, max_new_tokens, "--max_new_tokens") or prompt
            for prompt in self._prompts(batch)
        ]

    def scored(self, batch: Sequence[Request]) -> list[ChoiceIds | Refused]:
        """Prompts with their choices in order, refused where the longest choice has no room."""
        return [
            prompt if isinstance(prompt, Refused) else self._with_choices(request, prompt)
            for request, prompt in zip(batch, self._prompts(batch), strict=True)
        ]

    def _with_choices(self, request: Request, prompt: list[int]) -> ChoiceIds | Refused:
        try:
            choices = self._choice_ids(request)
        except LengthError as error:  # an answer that alone is longer than the model takes
            return Refused(str(error))
        room = self._room(prompt, max(map(len, choices)), "the length of its choices")
        return room or ChoiceIds(prompt, choices)

    def _prompts(self, batch: Sequence[Request]) -> Iterator[list[int] | Refused]:
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
