"""Multiple choice as a rule: the official rule, our option parser, and the likeliest choice by three protocols."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from alm.scoring import controls
from alm.scoring.answers import Answer, Fixed, Question
from alm.scoring.choices import (
    bare_answer,
    bare_choices,
    gold_indices,
    gold_text,
    normalise,
    official_match,
    parse_option,
)
from alm.scoring.open_answers import exact_match

LIKELIHOODS = ("loglikelihood", "loglikelihood_mean")


@dataclass(frozen=True)
class ChoiceRule:
    """A `Rule`; `generated` names the scores of generated answers among `official`, `option` and `exact_match`."""

    generated: tuple[str, ...] = ("official", "option")

    @property
    def unavailable(self) -> dict[str, str]:
        """Nothing: these scores need no model of their own."""
        return {}

    def prediction(self, text: str, item: Question) -> str:
        """Cut to the bare answer, which the official rule wants."""
        return bare_answer(text, item.choices)

    def verdicts(
        self, items: Sequence[Question], answers: Sequence[Answer], names: Sequence[str]
    ) -> list[dict[str, float]]:
        """Per item whether the answer is right."""
        return [dict(correct(item, answer, names)) for item, answer in zip(items, answers, strict=True)]

    def fixed(self, items: Sequence[Question]) -> Fixed:
        """Chance, the best constant position, the longest choice."""
        constant = controls.best_constant(items)
        vectors = {
            "chance": controls.chance(items),
            "constant_position": constant.scores,
            "longest_choice": controls.longest_choice(items),
        }
        return Fixed(vectors, {"constant_position": constant.position})

    def counts(self, items: Sequence[Question], answers: Sequence[Answer | None]) -> dict[str, int]:
        """Questions without a right choice, and generated answers that name none."""
        said = [(i, a.prediction) for i, a in zip(items, answers, strict=True) if a and a.prediction is not None]
        found = {"gold_not_among_choices": sum(not gold_indices(item.answer, item.choices) for item in items)}
        if said:
            found["unparsed"] = sum(parse_option(text, item.choices) is None for item, text in said)
        return found


def correct(item: Question, answer: Answer, names: Sequence[str]) -> dict[str, bool]:
    """Whether the answer is right by each score in `names`; a missing answer is wrong by all.

    `official`: the benchmark's rule on the prediction as it is. `option`: the parsed choice is the gold one. `exact_match`: the
    prediction is the gold text but for case and punctuation. `loglikelihood`: the choice of highest log-probability is the gold
    one; `loglikelihood_mean`: of highest log-probability per token; `letter`: whose letter is likeliest.
    """
    gold, said = gold_indices(item.answer, item.choices), answer.prediction
    sums, tokens = answer.loglikelihood or [], answer.tokens or []
    means = [None if total is None else total / count for total, count in zip(sums, tokens, strict=True)]
    verdicts = {
        "official": said is not None and official_match(said, gold_text(item.answer, item.choices), item.choices),
        "option": said is not None and parse_option(said, item.choices) in gold,
        "exact_match": said is not None and exact_match(said, item.answer),
        "loglikelihood": _best(sums) in gold,
        "loglikelihood_mean": _best(means) in gold,
        "letter": _best(answer.letters or []) in gold,
    }
    return {name: verdicts[name] for name in names}


@dataclass(frozen=True)
class Rotated:
    """A question with its choices rotated by `shift`, so that each stands at every place once; letters in the file are taken off."""

    item: Question
    shift: int

    @property
    def id(self) -> str:
        """The question's own."""
        return self.item.id

    @property
    def question(self) -> str:
        """The question's own."""
        return self.item.question

    @property
    def groups(self) -> dict[str, str]:
        """The question's own."""
        return self.item.groups

    @property
    def choices(self) -> tuple[str, ...]:
        """The bare choices, the one at `shift` first."""
        bare = bare_choices(self.item.choices)
        return bare[self.shift :] + bare[: self.shift]

    @property
    def answer(self) -> str:
        """The bare gold text."""
        gold = sorted(gold_indices(self.item.answer, self.item.choices))
        return bare_choices(self.item.choices)[gold[0]] if gold else self.item.answer


def rotations(item: Question) -> list[Any]:
    """The question as it is, and with its choices in each other rotation."""
    return [item, *(Rotated(item, shift) for shift in range(1, len(item.choices)))]


def candidates(choices: Sequence[str]) -> list[int]:
    """The positions that can be answered: an empty choice (4 rows of MMAR) would win every comparison by its shortness."""
    return [index for index, choice in enumerate(choices) if normalise(choice)]


def _best(values: Sequence[float | None]) -> int | None:
    """Position of the highest value, the first in a tie; empty choices (None) are no candidates."""
    real = [(value, -index) for index, value in enumerate(values) if value is not None]
    return -max(real)[1] if real else None
