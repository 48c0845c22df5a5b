"""What exported tasks tell lm-evaluation-harness. Copied into their folder as `utils.py`, so it imports nothing of this project.

The harness moves white space from the end of a context to the front of its continuations, where the line break before an answer would be
scored with the answer. An exported prompt therefore ends before that line break, and its first continuation is the line break alone:

    log p(answer | prompt) = log p(line break, answer | prompt without it) - log p(line break | prompt without it)
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

Results = Sequence[tuple[float, bool]]
"""The harness's (log-probability, greedy) of each continuation."""


def load(questions: str, **_: Any) -> dict[str, Any]:
    """The rows of a file beside this one, wherever the folder lies."""
    from datasets import Dataset

    lines = Path(__file__).with_name(questions).read_text(encoding="utf-8").split("\n")
    return {"test": Dataset.from_list([json.loads(line) for line in lines if line])}


def loglikelihood(doc: dict[str, Any], results: Results) -> dict[str, float]:
    """Whether the likeliest choice is right: by the sum over its tokens, and by their mean."""
    sums = choice_sums(results)
    means = [total / count for total, count in zip(sums, doc["tokens"], strict=True)]
    return {"loglikelihood": _right(doc, sums), "loglikelihood_mean": _right(doc, means)}


def letter(doc: dict[str, Any], results: Results) -> dict[str, float]:
    """Whether the likeliest letter is right."""
    return {"letter": _right(doc, choice_sums(results))}


def choice_sums(results: Results) -> list[float]:
    """Per choice, in order, the log-probability of its tokens after the whole prompt."""
    (line_break, _), *choices = results
    return [total - line_break for total, _ in choices]


def _right(doc: dict[str, Any], values: Sequence[float]) -> float:
    """The first in a tie counts; a question without choices is answered wrongly."""
    best = max(range(len(values)), key=lambda place: (values[place], -place), default=None)
    return float(best in doc["gold"])
