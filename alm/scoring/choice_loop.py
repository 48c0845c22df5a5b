"""The run of a system over a benchmark of questions: requests batch by batch, answers logged as they come."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from string import ascii_uppercase
from typing import Any, NamedTuple

from alm.data.example import DataError
from alm.scoring.answers import Answer, Answers, Question, Rule
from alm.scoring.choice_settings import CONTROLS, NO_AUDIO, LoopSettings
from alm.scoring.choices import bare_choices
from alm.scoring.clips import Clips, require_clips
from alm.scoring.item_log import ItemLog, Row
from alm.scoring.multiple_choice import candidates, rotations
from alm.scoring.processes import Processes
from alm.scoring.prompts import LETTER_PROMPT, PROMPTS
from alm.scoring.systems.base import ChoiceScorer, PartialListener, Refused, Request, System

Part = dict[str, Any] | Refused
"""Fields of an `Answer`, or why there are none."""


class Asked(NamedTuple):
    """A question as it is put once: its wording (perhaps with rotated choices) and the clip (None: without)."""

    item: Question
    audio: Path | None


@dataclass
class ChoiceLoop:
    """Puts questions to a system, in batches of clips of similar length, longest first (memory runs out at once or never, and the
    time left is never underestimated).

    Batches are cut from the whole benchmark and not from what is left of it: a resumed run computes the same batches and so
    the same rows to the last bit, as do several `processes` together. `partners` names, by question, the one whose clip it hears
    as `SHUFFLED_AUDIO`; `digests` are the clips'.
    """

    system: System
    paths: Mapping[str, Path]
    settings: LoopSettings
    rule: Rule
    partners: Mapping[str, str] = field(default_factory=dict)
    processes: Processes = field(default_factory=Processes)
    digests: Mapping[str, str] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)

    def heard(self, item_id: str) -> list[str | None]:
        """Digests of a question's clip and of its partner's: of which sounds its row tells."""
        return [self.digests.get(name) for name in (item_id, self.partners.get(item_id, ""))]

    def run(self, questions: Sequence[Question], clips: Clips, log: ItemLog, max_missing: float) -> Answers:
        """Answer every question that `log` does not hold yet; return all answers.

        Raises `DataError` when too many clips turn out to be unreadable; what was answered by then is in the log.
        """
        self.problems = dict(clips.problems)
        # questions about one clip stand together, so that its codes are at hand
        order = sorted(questions, key=lambda item: (-clips.seconds.get(item.id, 0.0), str(self.paths[item.id])))
        size = self.settings.batch_size
        batches = [order[start : start + size] for start in range(0, len(order), size)]
        for batch in self.processes.share(batches, "answering", "question"):
            if any(item.id not in log.rows for item in batch):
                rows = self._rows(batch)
                require_clips(self.problems, len(questions), max_missing)
                log.append([row for row in rows if row["id"] not in log.rows])
        self.processes.collect(log, [item.id for item in order])
        self.problems |= {item.id: why for item in order if (why := log.rows[item.id]["missing"])}
        require_clips(self.problems, len(questions), max_missing)
        return collect(questions, log.rows)

    def _rows(self, batch: Sequence[Question]) -> list[Row]:
        heard = [item for item in batch if item.id not in self.problems]
        replies = self._answers([Asked(item, self.paths[item.id]) for item in heard])
        answers: dict[str, Answer] = {}
        for item, reply in zip(heard, replies, strict=True):
            if isinstance(reply, Refused):
                self.problems[item.id] = f"question {item.id}: {reply.reason}"
            else:
                answers[item.id] = reply
        turned = self._rotations([item for item in heard if item.id in answers]) if self.settings.cyclic else {}
        controls = {name: self._control(name, batch) for name in self.settings.controls}
        scored = [answers.get(item.id, Answer()) for item in batch]
        verdicts = self.rule.verdicts(batch, scored, self.settings.scores(self.rule))
        return [
            {
                "id": item.id,
                **answer.to_row(),
                "correct": verdict,
                **{name: said[item.id].to_row() if item.id in said else None for name, said in controls.items()},
                "shuffled_with": self.partners.get(item.id),
                "clips": self.heard(item.id),
                "rotations": [one.to_row() for one in turned[item.id]] if item.id in turned else None,
                "missing": self.problems.get(item.id),
            }
            for item, answer, verdict in zip(batch, scored, verdicts, strict=True)
        ]

    def _control(self, name: str, batch: Sequence[Question]) -> dict[str, Answer]:
        """The same questions without their clip, or with another's; what cannot be asked is left out."""
        if name == NO_AUDIO:
            asked = [Asked(item, None) for item in batch]
        else:
            asked = [
                Asked(item, self.paths[self.partners[item.id]])
                for item in batch
                if self.partners.get(item.id, item.id) not in self.problems and item.id in self.partners
            ]
        replies = zip(asked, self._answers(asked), strict=True)
        return {one.item.id: reply for one, reply in replies if isinstance(reply, Answer)}

    def _rotations(self, items: Sequence[Question]) -> dict[str, list[Answer]]:
        """Answers to each question's 2nd, 3rd, … rotation; a refused one (no longer than the first, so rare) counts as wrong."""
        found: dict[str, list[Answer]] = {item.id: [] for item in items}
        for shift in range(1, max((len(item.choices) for item in items), default=0)):
            asked = [Asked(rotations(item)[shift], self.paths[item.id]) for item in items if shift < len(item.choices)]
            for one, reply in zip(asked, self._answers(asked), strict=True):
                found[one.item.id].append(reply if isinstance(reply, Answer) else Answer())
        return found

    def _answers(self, asked: Sequence[Asked]) -> list[Answer | Refused]:
        """An answer to each, with all that the settings want; refused where any part of it is."""
        settings = self.settings
        stages = {
            self._generated: settings.generation,
            self._likelihoods: settings.loglikelihood,
            self._letters: settings.letter,
        }
        parts = [stage(asked) for stage, wanted in stages.items() if wanted and asked]
        if isinstance(self.system, PartialListener):
            heard = self.system.heard_seconds
            parts.append([{"heard_seconds": one.audio and heard(one.audio)} for one in asked])
        return [_joined([part[place] for part in parts]) for place in range(len(asked))]

    def _generated(self, asked: Sequence[Asked]) -> list[Part]:
        replies = self.system.answer(
            [question_request(one, self.settings.prompt) for one in asked], self.settings.max_new_tokens
        )
        return [
            reply
            if isinstance(reply, Refused)
            else {
                "prediction": self.rule.prediction(reply.text, one.item),
                "generated": reply.text,
                "truncated": not reply.stopped,
                "prompt_tokens": reply.prompt_tokens,
            }
            for one, reply in zip(asked, replies, strict=True)
        ]

    def _likelihoods(self, asked: Sequence[Asked]) -> list[Part]:
        requests = [likelihood_request(one, self.settings.prompt) for one in asked]
        return [
            reply if isinstance(reply, Refused) else {"loglikelihood": reply[0], "tokens": reply[1]}
            for reply in self._scored(asked, requests)
        ]

    def _letters(self, asked: Sequence[Asked]) -> list[Part]:
        requests = [letter_request(one) for one in asked]
        return [
            reply if isinstance(reply, Refused) else {"letters": reply[0]} for reply in self._scored(asked, requests)
        ]

    def _scored(
        self, asked: Sequence[Asked], requests: Sequence[Request]
    ) -> Iterator[tuple[list[float | None], list[int]] | Refused]:
        """Sums and numbers of tokens per choice; None and 0 for one that is no candidate."""
        assert isinstance(self.system, ChoiceScorer)  # `score_system` switches likelihoods off for others
        real = [request for request in requests if request.choices]
        replies = iter(self.system.score(real) if real else [])
        for one, request in zip(asked, requests, strict=True):
            sums: list[float | None] = [None] * len(one.item.choices)
            tokens = [0] * len(sums)
            if request.choices:
                reply = next(replies)
                if isinstance(reply, Refused):
                    yield reply
                    continue
                places = candidates(bare_choices(one.item.choices))
                if not all(map(isfinite, reply.sums)):
                    raise DataError(
                        f"question {one.item.id}: the model gives {reply.sums} as log-likelihoods; are its weights broken, or too "
                        "large for --dtype?"
                    )
                for place, total, count in zip(places, reply.sums, reply.tokens, strict=True):
                    sums[place], tokens[place] = total, count
            yield sums, tokens


def question_request(asked: Asked, prompt: str) -> Request:
    """The question, to be answered; `prompt` is a name in `PROMPTS`."""
    return Request(PROMPTS[prompt](asked.item.question, bare_choices(asked.item.choices)), asked.audio)


def likelihood_request(asked: Asked, prompt: str) -> Request:
    """The question with the texts of its candidates, in order."""
    choices = bare_choices(asked.item.choices)
    return question_request(asked, prompt)._replace(choices=tuple(choices[i] for i in candidates(choices)))


def letter_request(asked: Asked) -> Request:
    """The question with the letters of its candidates, which only the first token decides."""
    letters = tuple(ascii_uppercase[i] for i in candidates(bare_choices(asked.item.choices)))
    return question_request(asked, LETTER_PROMPT)._replace(choices=letters, closed=False)


def _joined(parts: Sequence[Part]) -> Answer | Refused:
    fields: dict[str, Any] = {}
    for part in parts:
        if isinstance(part, Refused):
            return part
        fields |= part
    return Answer(**fields)


def collect(questions: Sequence[Question], rows: Mapping[str, Row]) -> Answers:
    """Answers of the logged rows; a question without a clip has none, its controls may."""
    found = {item.id: rows[item.id] for item in questions if item.id in rows}
    return Answers(
        answers={i: Answer.from_row(row) for i, row in found.items() if row["missing"] is None},
        controls={
            name: {i: Answer.from_row(row[name]) for i, row in found.items() if row.get(name)}
            for name in CONTROLS
            if any(row.get(name) for row in found.values())
        },
        rotations={
            i: [Answer.from_row(one) for one in row["rotations"]]
            for i, row in found.items()
            if row.get("rotations") is not None
        },
    )
