"""Questions about audio, what systems answer to them, and what a benchmark's rule must tell. Needs no model and no torch."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

Vectors = dict[str, NDArray[np.float64]]
"""Name → one number per question, in the questions' order."""


class Question(Protocol):
    """What the harness needs to know of a question; `groups` is field → group."""

    @property
    def id(self) -> str:
        """Unique in the benchmark."""

    @property
    def question(self) -> str:
        """The question's text."""

    @property
    def choices(self) -> tuple[str, ...]:
        """The choices as the file gives them; none where the answer is open."""

    @property
    def answer(self) -> str:
        """The gold text as the file gives it."""

    @property
    def groups(self) -> dict[str, str]:
        """The breakdowns the question belongs to."""


@dataclass(frozen=True)
class Answer:
    """What a system said to one question.

    `prediction` is what is scored (None: nothing was said), `generated` the model's whole text before the cut to it,
    `truncated` whether that text reached the limit instead of ending its turn.
    `loglikelihood` has one sum of log-probabilities per choice (None for an empty choice) over `tokens` tokens each; `letters` one
    per choice of its letter, asked with lettered choices.
    `prompt_tokens` is the prompt's length with its audio, `heard_seconds` how much of the clip was heard where that was not all.
    """

    prediction: str | None = None
    generated: str | None = None
    truncated: bool = False
    loglikelihood: list[float | None] | None = None
    tokens: list[int] | None = None
    letters: list[float | None] | None = None
    prompt_tokens: int | None = None
    heard_seconds: float | None = None

    def to_row(self) -> dict[str, Any]:
        """As stored in the per-item file."""
        return asdict(self)

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> "Answer":
        """Read back `to_row`; other keys are left alone."""
        return cls(**{name: row[name] for name in cls.__dataclass_fields__ if name in row})


@dataclass(frozen=True)
class Answers:
    """A system's answers by question id; an absent one is missing.

    `controls` holds, by control, its answers to the same prompts without the clip (`no_audio`) or with another's (`shuffled_audio`);
    `rotations` those to the 2nd, 3rd, … rotation of the question's choices, in that order.
    """

    answers: dict[str, Answer]
    controls: dict[str, dict[str, Answer]] = field(default_factory=dict)
    rotations: dict[str, list[Answer]] = field(default_factory=dict)


class Fixed(NamedTuple):
    """What the questions earn without a system, and what was chosen for it (a position, an answer), for the manifest."""

    vectors: Vectors
    chosen: dict[str, Any]


class Rule(Protocol):
    """How a benchmark turns answers into numbers."""

    @property
    def generated(self) -> tuple[str, ...]:
        """Names of the scores of generated answers, the chief one first."""

    @property
    def unavailable(self) -> dict[str, str]:
        """Scores that belong here and cannot be computed, with the reason and the way to have them."""

    def prediction(self, text: str, item: Question) -> str:
        """What of a generated text is scored."""

    def verdicts(
        self, items: Sequence[Question], answers: Sequence[Answer], names: Sequence[str]
    ) -> list[dict[str, float]]:
        """Per item, 1 or 0 for right or wrong (or a share of right) by each score in `names`; all 0 for an empty `Answer`."""

    def fixed(self, items: Sequence[Question]) -> Fixed:
        """The controls that need no model."""

    def counts(self, items: Sequence[Question], answers: Sequence[Answer | None]) -> dict[str, int]:
        """What else is worth counting."""


@dataclass(frozen=True)
class Item:
    """A plain `Question`, for benchmarks whose reader has no class of its own."""

    id: str
    question: str
    choices: tuple[str, ...]
    answer: str
    groups: dict[str, str]
