"""From answers to a `Result`: scores, controls with the difference to each score, counts, and tables by group."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alm.scoring.answers import Answer, Answers, Question, Rule, Vectors
from alm.scoring.multiple_choice import rotations
from alm.scoring.results import Result, Scores
from alm.scoring.statistics import Estimate, estimate, paired_bootstrap

COLUMNS = (
    *("official", "option", "exact_match", "loglikelihood"),
    *("no_audio", "chance", "constant_position", "longest_choice", "constant_answer"),
)
"""What the tables of groups show, as far as it was computed; `no_audio` is that control of the chief score."""
GAIN = "gain_over_{control}_{score}"


def score_vectors(
    rule: Rule, questions: Sequence[Question], answers: dict[str, Answer], names: Sequence[str]
) -> Vectors:
    """One number per question for each score in `names`, as the rule says; 0 where there is no answer `(questions,)`."""
    verdicts = rule.verdicts(questions, [answers.get(item.id, Answer()) for item in questions], names)
    return {name: np.array([float(verdict[name]) for verdict in verdicts]) for name in names}


def summarise(
    benchmark: str,
    system: str,
    questions: Sequence[Question],
    given: Answers,
    rule: Rule,
    names: Sequence[str],
    manifest: dict[str, Any],
    unavailable: dict[str, str] | None = None,
    counts: dict[str, int] | None = None,
    items: str = "",
) -> Result:
    """The `Result` of answers to all `questions`: scores `names`, controls, and both broken down by the questions' groups.

    Beside every score stands what each control earns, and the paired difference of the two with its interval: `gain_over_CONTROL_SCORE`.
    A control that is missing for some questions (another's clip that cannot be read) is compared on the rest.
    """
    scores = score_vectors(rule, questions, given.answers, names)
    fixed = rule.fixed(questions)
    controls = {name: estimate_of(name, vector) for name, vector in fixed.vectors.items()}
    gains = {
        GAIN.format(control=control, score=name): _difference(vector, fixed.vectors[control])
        for control in fixed.vectors
        for name, vector in scores.items()
    }
    beside = dict(fixed.vectors)
    for control, answers in given.controls.items():
        index = np.array([number for number, item in enumerate(questions) if item.id in answers], dtype=int)
        without = score_vectors(rule, [questions[number] for number in index], answers, names) if len(index) else {}
        for name, vector in without.items():
            controls[f"{control}_{name}"] = estimate(vector)
            gains[GAIN.format(control=control, score=name)] = _difference(scores[name][index], vector)
            if len(index) == len(questions):
                beside[f"{control}_{name}"] = vector
    rotated = _rotated(rule, questions, given, scores)
    return Result(
        benchmark=benchmark,
        system=system,
        scores={name: estimate(vector) for name, vector in (scores | rotated).items()},
        groups=_groups(questions, scores | beside),
        controls=controls | gains,
        counts=_counts(questions, given, rule) | (counts or {}),
        unavailable={**(unavailable or {}), **rule.unavailable},
        manifest=manifest | fixed.chosen,
        items=items,
    )


def _rotated(rule: Rule, questions: Sequence[Question], given: Answers, scores: Vectors) -> Vectors:
    """Per score, the share of a question's rotations that are right (`…_cyclic`), and whether all are (`…_cyclic_all`)."""
    if not given.rotations:
        return {}
    shares: dict[str, list[float]] = {name: [] for name in scores}
    for number, item in enumerate(questions):
        turned = rotations(item)[1:]
        said = given.rotations.get(item.id) or [Answer()] * len(turned)
        verdicts = rule.verdicts(turned, said, list(scores))
        for name in scores:
            right = [scores[name][number], *(verdict[name] for verdict in verdicts)]
            shares[name].append(sum(map(float, right)) / len(right))
    means = {name: np.array(values) for name, values in shares.items()}
    return {
        form: vector
        for name, mean in means.items()
        for form, vector in ((f"{name}_cyclic", mean), (f"{name}_cyclic_all", (mean == 1.0).astype(float)))
    }


def _groups(questions: Sequence[Question], vectors: Vectors) -> dict[str, dict[str, Scores]]:
    chief = next((name for name in ("loglikelihood", "official", "exact_match") if f"no_audio_{name}" in vectors), "")
    columns = [f"no_audio_{chief}" if name == "no_audio" else name for name in COLUMNS]
    shown = [name for name in columns if name in vectors]
    tables: dict[str, dict[str, Scores]] = {}
    for name in questions[0].groups:
        members: dict[str, list[int]] = {}
        for index, item in enumerate(questions):
            members.setdefault(item.groups[name], []).append(index)
        tables[name] = {
            group: {column: estimate_of(column, vectors[column][indices]) for column in shown}
            for group, indices in sorted(members.items())
        }
    return tables


def estimate_of(name: str, vector: NDArray[np.float64]) -> Estimate:
    """The mean of a score or control with its interval; chance is an expectation, known exactly."""
    if name == "chance":
        return Estimate(float(vector.mean()), float(vector.mean()), float(vector.mean()), len(vector))
    return estimate(vector)


def _difference(a: NDArray[np.float64], b: NDArray[np.float64]) -> Estimate:
    difference = paired_bootstrap(a, b, resamples=2_000)  # the interval only
    return Estimate(difference.value, difference.low, difference.high, difference.n)


def _counts(questions: Sequence[Question], given: Answers, rule: Rule) -> dict[str, int]:
    answers = [given.answers.get(item.id) for item in questions]
    partly = sum(answer is not None and answer.heard_seconds is not None for answer in answers)
    return {
        "items": len(questions),
        "missing": sum(answer is None for answer in answers),
        "truncated": sum(answer is not None and answer.truncated for answer in answers),
        **({"partly_heard": partly} if partly else {}),
        **rule.counts(questions, answers),
    }
