"""Other people's audio-language models, through Transformers' own classes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from alm.chat.backend import Conversation, Turn
from alm.chat.local import LocalModel, messages
from alm.data.example import DataError
from alm.scoring.loglikelihood import score_choices
from alm.scoring.systems.base import ChoiceScores, GeneratedText, Refused, Request
from alm.vocabulary import digest
from codec.audio import AudioError, read_audio

SHORTEST = 0.1
"""Seconds. Encoders halve the frames of 10 ms twice: of less than this, some make no token."""


class LocalSystem:
    """A `LocalModel` behind `alm.scoring.systems.base.System`, `ChoiceScorer` and `PartialListener`.

    Of a clip longer than the model's window it hears the beginning, as much as its own processor keeps; the run counts these clips.
    """

    def __init__(self, model: LocalModel, label: str | None = None) -> None:
        self.model, self.label = model, label or Path(model.name).name
        self._heard: dict[Path, int] = {}  # samples
        self._cut: dict[Path, float] = {}  # seconds, of the clips that are longer

    @property
    def identity(self) -> dict[str, Any]:
        """Class and weights with their type in memory, and all that makes ids and features of a request."""
        processor, tokenizer = self.model.processor, self.model.tokenizer
        backend = getattr(tokenizer, "backend_tokenizer", None)
        return {
            **{name: self.model.settings[name] for name in ("class", "weights", "dtype")},
            "commit_of_model": self.model.commit,
            "processor": type(processor).__name__,
            "features": digest(self.model.extractor.to_json_string()),
            "tokenizer": digest(backend.to_str() if backend is not None else tokenizer.get_vocab()),
            "chat_template": digest(processor.chat_template),
            "stop_ids": sorted(self.model.stop_ids),
            "longer_clips": "their beginning, as much as the processor keeps",
        }

    def heard_seconds(self, audio: Path) -> float | None:
        """See `PartialListener`."""
        return self._cut.get(audio)

    def answer(self, batch: Sequence[Request], max_new_tokens: int) -> list[GeneratedText | Refused]:
        """Greedy answers: to the requests with a clip as one batch, to those without as another."""
        asked = [self._conversation(request) for request in batch]
        found: dict[int, GeneratedText | Refused] = {n: one for n, one in enumerate(asked) if isinstance(one, Refused)}
        for heard in (True, False):
            group = {
                n: one
                for n, one in enumerate(asked)
                if isinstance(one, Conversation) and (one.waveform is not None) == heard
            }
            found |= zip(group, self._answers(list(group.values()), max_new_tokens), strict=True)
        return [found[n] for n in range(len(batch))]

    def score(self, batch: Sequence[Request]) -> list[ChoiceScores | Refused]:
        """Log-probabilities of the choices; each request's prompt runs through the model once."""
        asked = zip(batch, map(self._conversation, batch), strict=True)
        return [one if isinstance(one, Refused) else self._score(request, one) for request, one in asked]

    def _answers(self, asked: Sequence[Conversation], max_new_tokens: int) -> list[GeneratedText | Refused]:
        if not asked:
            return []
        inputs = self.model.inputs(asked)
        rooms = [self._room(length, max_new_tokens) for length in inputs["attention_mask"].sum(1).tolist()]
        if any(rooms):
            fitting = [one for one, refused in zip(asked, rooms, strict=True) if refused is None]
            answers = iter(self._answers(fitting, max_new_tokens))
            return [refused or next(answers) for refused in rooms]
        replies = self.model.replies(inputs, max_new_tokens)
        return [GeneratedText(reply.text, not reply.cut, reply.prompt_tokens) for reply in replies]

    def _score(self, request: Request, asked: Conversation) -> ChoiceScores | Refused:
        inputs = self.model.inputs([asked])
        choices = [self._answer_ids(request, choice) for choice in request.choices]
        room = self._room(inputs["input_ids"].shape[1], max(map(len, choices)))
        return room or score_choices(self.model.model, inputs, choices)

    def _conversation(self, request: Request) -> Conversation | Refused:
        turns, rate = [Turn("user", request.text)], self.model.sampling_rate
        if request.audio is None:
            return Conversation(None, turns)
        try:
            waveform = read_audio(request.audio, rate)
        except AudioError as error:
            return Refused(str(error))
        if len(waveform) < SHORTEST * rate:
            return Refused(f"{request.audio}: a clip of {len(waveform) / rate:.3f} s, at least {SHORTEST} s needed")
        if request.audio not in self._heard:
            self._heard[request.audio] = heard = self.model.heard(waveform)
            if heard < len(waveform):
                self._cut[request.audio] = heard / rate
        return Conversation(waveform[: self._heard[request.audio]], turns)

    def _room(self, prompt: int, more: int) -> Refused | None:
        limit = getattr(self.model.model.config.get_text_config(), "max_position_embeddings", None)
        if limit is None or prompt + more <= limit:
            return None
        return Refused(f"a prompt of {prompt} tokens leaves no room for {more} more: the model takes {limit}")

    def _answer_ids(self, request: Request, answer: str) -> list[int]:
        """The ids with which the template writes `answer` behind the question, the end of turn included where `closed`.

        Raises `DataError` where the template does not write it there.
        """
        asked = messages(Conversation(None, [Turn("user", request.text)]))  # the clip changes no id behind it
        said = messages(Conversation(None, [Turn("assistant", answer)]))
        template = self.model.processor.apply_chat_template
        prompt, whole = (
            self.model.tokenizer(text, add_special_tokens=False).input_ids
            for text in (template(asked, add_generation_prompt=True), template([*asked, *said]))
        )
        ids = whole[len(prompt) :]
        end = next((place for place, token in enumerate(ids) if token in self.model.stop_ids), 0)
        if whole[: len(prompt)] != prompt or not end:
            raise DataError(
                f"{self.model.name}: its chat template does not write an answer where it asks for one, closed by the token that ends "
                f"generation, so that answers have no likelihood: score with --no_loglikelihood --no_letter"
            )
        return ids[: end + request.closed]
