"""Multiple-choice benchmarks: the way from answers to a `Result`. Needs no model and no torch."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from alm.scoring import controls
from alm.scoring.choices import gold_indices, normalise, official_match, parse_option
from alm.scoring.results import Result, Scores
from alm.scoring.statistics import Estimate, estimate, paired_bootstrap

COLUMNS = ("official", "option", "loglikelihood", "no_audio", "chance", "constant_position", "longest_choice")
"""What the tables of groups show, as far as it was computed; `no_audio` is the control of the last score."""
Vectors = dict[str, NDArray[np.float64]]


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
        """The choices as the file gives them."""

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
    `loglikelihood` has one sum of log-probabilities per choice (None for an empty choice) over `tokens` tokens each.
    `prompt_tokens` is the prompt's length with its audio.
    """

    prediction: str | None = None
    generated: str | None = None
    truncated: bool = False
    loglikelihood: list[float | None] | None = None
    tokens: list[int] | None = None
    prompt_tokens: int | None = None

    def to_row(self) -> dict[str, Any]:
        """As stored in the per-item file."""
        return asdict(self)

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> "Answer":
        """Read back `to_row`; other keys are left alone."""
        return cls(**{name: row[name] for name in cls.__dataclass_fields__ if name in row})


@dataclass(frozen=True)
class Answers:
    """Answers by question id (an absent one is missing), and those of the same model to the same prompts without the audio."""

    answers: dict[str, Answer]
    no_audio: dict[str, Answer] = field(default_factory=dict)


def correct(item: Question, answer: Answer, names: Sequence[str]) -> dict[str, bool]:
    """Whether the answer is right by each score in `names`; a missing answer is wrong by all.

    `official`: the benchmark's rule on the prediction as it is. `option`: the parsed choice is the gold one. `loglikelihood`: the
    choice of highest log-probability is; `loglikelihood_mean`: of highest log-probability per token.
    """
    gold, said = gold_indices(item.answer, item.choices), answer.prediction
    sums, tokens = answer.loglikelihood or [], answer.tokens or []
    means = [None if total is None else total / count for total, count in zip(sums, tokens, strict=True)]
    verdicts = {
        "official": said is not None and official_match(said, item.answer, item.choices),
        "option": said is not None and parse_option(said, item.choices) in gold,
        "loglikelihood": _best(sums) in gold,
        "loglikelihood_mean": _best(means) in gold,
    }
    return {name: verdicts[name] for name in names}


def score_vectors(questions: Sequence[Question], answers: Mapping[str, Answer], names: Sequence[str]) -> Vectors:
    """1 or 0 per question for each score in `names`, as `correct` says `(questions,)`."""
    verdicts = [correct(item, answers.get(item.id, Answer()), names) for item in questions]
    return {name: np.array([float(verdict[name]) for verdict in verdicts]) for name in names}


def summarise(
    benchmark: str,
    system: str,
    questions: Sequence[Question],
    given: Answers,
    names: Sequence[str],
    manifest: dict[str, Any],
    unavailable: dict[str, str] | None = None,
    counts: dict[str, int] | None = None,
    items: str = "",
) -> Result:
    """The `Result` of answers to all `questions`: scores `names`, controls, and both broken down by the questions' groups."""
    scores = score_vectors(questions, given.answers, names)
    constant = controls.best_constant(questions)
    beside: Vectors = {
        "chance": controls.chance(questions),
        "constant_position": constant.scores,
        "longest_choice": controls.longest_choice(questions),
    }
    if given.no_audio:
        silent = score_vectors(questions, given.no_audio, names)
        beside |= {f"no_audio_{name}": vector for name, vector in silent.items()}
    fixed = {name: _estimate(name, vector) for name, vector in beside.items()}
    if given.no_audio:
        fixed |= {f"gain_of_audio_{name}": _difference(scores[name], silent[name]) for name in names}
    return Result(
        benchmark=benchmark,
        system=system,
        scores={name: estimate(vector) for name, vector in scores.items()},
        groups=_groups(questions, scores | beside),
        controls=fixed,
        counts=_counts(questions, given, names) | (counts or {}),
        unavailable=unavailable or {},
        manifest=manifest | {"constant_position": constant.position},
        items=items,
    )


def _groups(questions: Sequence[Question], vectors: Vectors) -> dict[str, dict[str, Scores]]:
    last = next((name for name in ("loglikelihood", "official") if f"no_audio_{name}" in vectors), "")
    columns = [f"no_audio_{last}" if name == "no_audio" else name for name in COLUMNS]
    shown = [name for name in columns if name in vectors]
    tables: dict[str, dict[str, Scores]] = {}
    for name in questions[0].groups:
        members: dict[str, list[int]] = {}
        for index, item in enumerate(questions):
            members.setdefault(item.groups[name], []).append(index)
        tables[name] = {
            group: {column: _estimate(column, vectors[column][indices]) for column in shown}
            for group, indices in sorted(members.items())
        }
    return tables


def _estimate(name: str, vector: NDArray[np.float64]) -> Estimate:
    if name == "chance":  # an expectation, known exactly
        return Estimate(float(vector.mean()), float(vector.mean()), float(vector.mean()), len(vector))
    return estimate(vector)


def _difference(a: NDArray[np.float64], b: NDArray[np.float64]) -> Estimate:
    difference = paired_bootstrap(a, b)
    return Estimate(difference.value, difference.low, difference.high, difference.n)


def _counts(questions: Sequence[Question], given: Answers, names: Sequence[str]) -> dict[str, int]:
    answers = [given.answers.get(item.id) for item in questions]
    found = {
        "items": len(questions),
        "missing": sum(answer is None for answer in answers),
        "gold_not_among_choices": sum(not gold_indices(item.answer, item.choices) for item in questions),
    }
    if "option" in names:
        said = [
            (item, answer)
            for item, answer in zip(questions, answers, strict=True)
            if answer and answer.prediction is not None
        ]
        found["unparsed"] = sum(parse_option(answer.prediction or "", item.choices) is None for item, answer in said)
        found["truncated"] = sum(answer.truncated for _, answer in said)
    return found


def _best(values: Sequence[float | None]) -> int | None:
    """Position of the highest value, the first in a tie; empty choices (None) are no candidates."""
    real = [(value, -index) for index, value in enumerate(values) if value is not None]
    return -max(real)[1] if real else None


def candidates(choices: Sequence[str]) -> list[int]:
    """The positions that can be answered: an empty choice (4 rows of MMAR) would win every comparison by its shortness."""
    return [index for index, choice in enumerate(choices) if normalise(choice)]
