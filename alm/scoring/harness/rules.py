"""Generated answers in lm-evaluation-harness, scored by the benchmark's own rule; the harness finds the function by its import path.

Unlike `task.py` this needs the project where the harness runs: a copied rule would be a second one.
"""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from alm.scoring.answers import Answer, Item, Rule
from alm.scoring.multiple_choice import ChoiceRule
from alm.scoring.open_answers import OpenRule
from alm.scoring.text_overlap import TextRule


def generation(doc: dict[str, Any], results: Sequence[str]) -> dict[str, float]:
    """The scores of an answer, by the rule whose class the row names."""
    (text,) = results
    rule = _rule(doc["rule"])
    item = Item(doc["id"], doc["question"], tuple(doc["choices"]), doc["answer"], {})
    answer = Answer() if doc["missing"] else Answer(rule.prediction(text, item))
    (verdict,) = rule.verdicts([item], [answer], doc["scores"])
    return {name: float(value) for name, value in verdict.items()}


@cache
def _rule(name: str) -> Rule:
    rules: dict[str, Callable[[], Rule]] = {
        ChoiceRule.__name__: ChoiceRule,
        OpenRule.__name__: OpenRule,
        TextRule.__name__: TextRule.available,
    }
    return rules[name]()
