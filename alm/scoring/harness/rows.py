"""Questions as text for lm-evaluation-harness, whose tokens are those of our own scoring.

The text is that of the ids: chat template applied, codes as the strings of their tokens, each choice with its end of turn. Where the
harness would tokenise it otherwise, it is refused.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alm.data.example import DataError
from alm.processing import AudioLanguageProcessor
from alm.prompts import TURN_START
from alm.scoring.answers import Question, Rule
from alm.scoring.choice_loop import Asked, letter_request, likelihood_request, question_request
from alm.scoring.choice_settings import LoopSettings
from alm.scoring.choices import bare_choices, gold_indices
from alm.scoring.item_log import Row
from alm.scoring.multiple_choice import LIKELIHOODS, candidates
from alm.scoring.systems.base import Refused, Request
from alm.scoring.systems.request_ids import RequestIds

GENERATION, LIKELIHOOD, LETTER = "generation", "loglikelihood", "letter"
"""Kinds of tasks, and the ends of their names."""
NOTHING: Row = {"prompt": TURN_START, "continuations": ["\n"], "tokens": [], "gold": []}
"""A question that has no choice to be right with."""


@dataclass
class RowWriter:
    """Writes a question for each kind of task that the settings want."""

    processor: AudioLanguageProcessor
    settings: LoopSettings
    rule: Rule

    def __post_init__(self) -> None:
        self.ids = RequestIds(self.processor)

    def rows(self, item: Question, audio: Path | None) -> dict[str, Row] | Refused:
        """The question's row of each kind; refused, as in our own run, where any of them is.

        Raises `DataError` where the harness would make other tokens of it.
        """
        try:
            found = self._found(Asked(item, audio))
        except DataError as error:
            raise DataError(f"question {item.id}: {error}") from error
        rows: dict[str, Row] = {}
        for kind, row in found.items():
            if isinstance(row, Refused):
                return row
            rows[kind] = _told(item, row, None)
        return rows

    def _found(self, asked: Asked) -> dict[str, Row | Refused]:
        settings, found = self.settings, dict[str, Row | Refused]()
        if settings.generation:
            found[GENERATION] = self._asked(question_request(asked, settings.prompt))
        if settings.loglikelihood:
            found[LIKELIHOOD] = self._scored(asked.item, likelihood_request(asked, settings.prompt))
        if settings.letter:
            found[LETTER] = self._scored(asked.item, letter_request(asked))
        return found

    def wrong(self, item: Question, reason: str) -> dict[str, Row]:
        """Rows that count as wrong whatever the model says, as a question without its clip does in our own run."""
        return {
            kind: _told(item, self._generation(NOTHING["prompt"]) if kind == GENERATION else NOTHING, reason)
            for kind in self.metrics
        }

    @property
    def metrics(self) -> dict[str, Sequence[str]]:
        """The kinds of tasks with the names of their scores, which are those of our own results."""
        wanted = {
            GENERATION: self.rule.generated * self.settings.generation,
            LIKELIHOOD: LIKELIHOODS * self.settings.loglikelihood,
            LETTER: (LETTER,) * self.settings.letter,
        }
        return {kind: names for kind, names in wanted.items() if names}

    def _generation(self, prompt: str) -> Row:
        return {"prompt": prompt, "rule": type(self.rule).__name__, "scores": list(self.rule.generated)}

    def _asked(self, request: Request) -> Row | Refused:
        (ids,) = self.ids.asked([request], self.settings.max_new_tokens)
        return ids if isinstance(ids, Refused) else self._generation(self._text(ids))

    def _scored(self, item: Question, request: Request) -> Row | Refused:
        if not request.choices:
            return NOTHING
        (ids,) = self.ids.scored([request])
        if isinstance(ids, Refused):
            return ids
        whole = self._text(ids.prompt)
        prompt = whole.rstrip()
        line_break = whole[len(prompt) :]
        before = self.processor.tokenizer.encode(prompt)
        continuations = [line_break]
        for choice in ids.choices:
            text = self._text([*ids.prompt, *choice])
            if not text.startswith(whole) or ids.prompt[: len(before)] != before:
                raise _other_tokens()
            continuations.append(text[len(prompt) :])
        places, right = candidates(bare_choices(item.choices)), gold_indices(item.answer, item.choices)
        return {
            "prompt": prompt,
            "continuations": continuations,
            "tokens": [len(choice) for choice in ids.choices],
            "gold": [position for position, place in enumerate(places) if place in right],
        }

    def _text(self, ids: Sequence[int]) -> str:
        tokenizer: Any = self.processor.tokenizer
        text: str = tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        if tokenizer.encode(text) != list(ids):
            raise _other_tokens()
        return text


def _told(item: Question, row: Row, missing: str | None) -> Row:
    told = {"question": item.question, "choices": list(item.choices), "answer": item.answer, "groups": item.groups}
    return {"id": item.id, **told, "missing": missing, **row}


def _other_tokens() -> DataError:
    return DataError(
        "as a text it would have other tokens than as ids: it holds the string of a control or audio token (such as <|im_end|>), or a "
        "choice begins with a line break. lm-evaluation-harness takes text only; leave the question out of --data"
    )
