"""Open answers: exact match over normalised texts, beside the commonest answer of the benchmark itself."""

import string
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from alm.scoring.answers import Answer, Fixed, Question

_PUNCTUATION = str.maketrans("", "", string.punctuation)


def plain(text: str) -> str:
    """Lower case, without ASCII punctuation, blanks single and none outside (lmms-eval's `exact_match`, which ignores the first two)."""
    return " ".join(text.lower().translate(_PUNCTUATION).split())


def exact_match(prediction: str, answer: str) -> bool:
    """Whether two answers are the same in their `plain` form; an empty prediction never is."""
    return plain(prediction) == plain(answer) != ""


@dataclass(frozen=True)
class OpenRule:
    """A `Rule` of exact match."""

    generated: tuple[str, ...] = ("exact_match",)

    @property
    def unavailable(self) -> dict[str, str]:
        """What needs choices."""
        return dict.fromkeys(("loglikelihood", "letter"), "the questions are open: there are no choices to score")

    def prediction(self, text: str, item: Question) -> str:
        """The whole text: nothing is cut off an open answer."""
        return text.strip()

    def verdicts(
        self, items: Sequence[Question], answers: Sequence[Answer], names: Sequence[str]
    ) -> list[dict[str, float]]:
        """Per item whether the answer is the gold one."""
        return [
            dict.fromkeys(names, float(exact_match(answer.prediction or "", item.answer)))
            for item, answer in zip(items, answers, strict=True)
        ]

    def fixed(self, items: Sequence[Question]) -> Fixed:
        """Always saying the commonest gold answer (the first of equals)."""
        common = Counter(plain(item.answer) for item in items).most_common(1)[0][0]
        earned = np.array([float(exact_match(common, item.answer)) for item in items])
        return Fixed({"constant_answer": earned}, {"constant_answer": common})

    def counts(self, items: Sequence[Question], answers: Sequence[Answer | None]) -> dict[str, int]:
        """Answers without a word."""
        return {"empty": sum(answer is not None and not plain(answer.prediction or "") for answer in answers)}
