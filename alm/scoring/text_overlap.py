"""MusicQA's text metrics as its authors compute them (MU-LLaMA's evaluation script), each a number per answer.

They are what published figures are in, with their quirks: BLEU is called on strings and so counts characters, ROUGE-L and BERTScore
are recalls, which a long answer raises. Packages and models that are absent leave a metric unavailable.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec

from alm.scoring.answers import Answer, Fixed, Question
from alm.scoring.open_answers import OpenRule, exact_match

Metric = Callable[[str, str], float]
"""(prediction, answer) → value from 0 to 1."""
INSTALL = "needs the package {}: pip install 'entangle-alm[eval]'"


@dataclass(frozen=True)
class TextRule:
    """A `Rule` of several text metrics; an empty prediction earns 0 by each."""

    metrics: dict[str, Metric]
    unavailable: dict[str, str] = field(default_factory=dict)

    @classmethod
    def available(cls) -> "TextRule":
        """Every metric that can be computed here."""
        metrics: dict[str, Metric] = {"exact_match": lambda said, gold: float(exact_match(said, gold))}
        missing = OpenRule().unavailable | {
            "bertscore_recall": "not computed here: score the predictions of the items file with the bert-score package (roberta-large)"
        }
        for package, names, make in (
            ("nltk", ("bleu_characters", "bleu4_characters"), _bleu),
            ("rouge_score", ("rouge_l_recall",), _rouge),
        ):
            if find_spec(package):
                metrics |= make()
            else:
                missing |= dict.fromkeys(names, INSTALL.format(package.replace("_", "-")))
        found = _meteor() if find_spec("nltk") else INSTALL.format("nltk")
        if isinstance(found, str):
            missing["meteor"] = found
        else:
            metrics["meteor"] = found
        return cls(metrics, missing)

    @property
    def generated(self) -> tuple[str, ...]:
        """The metrics, exact match first."""
        return tuple(self.metrics)

    def prediction(self, text: str, item: Question) -> str:
        """The whole text."""
        return text.strip()

    def verdicts(
        self, items: Sequence[Question], answers: Sequence[Answer], names: Sequence[str]
    ) -> list[dict[str, float]]:
        """Per item the value of each metric."""
        return [
            {
                name: self.metrics[name](said, item.answer) if (said := (answer.prediction or "").strip()) else 0.0
                for name in names
            }
            for item, answer in zip(items, answers, strict=True)
        ]

    def fixed(self, items: Sequence[Question]) -> Fixed:
        """Always saying the commonest gold answer."""
        return OpenRule().fixed(items)

    def counts(self, items: Sequence[Question], answers: Sequence[Answer | None]) -> dict[str, int]:
        """Answers without a word."""
        return OpenRule().counts(items, answers)


def _bleu() -> dict[str, Metric]:
    from nltk.translate.bleu_score import sentence_bleu

    def over_characters(weights: tuple[float, ...]) -> Metric:
        def metric(said: str, gold: str) -> float:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # without a common 4-gram it is 0, as it should
                return float(sentence_bleu([gold], said, weights=weights))

        return metric

    return {
        "bleu_characters": over_characters((0.25, 0.25, 0.25, 0.25)),
        "bleu4_characters": over_characters((0.0, 0.0, 0.0, 1.0)),
    }


def _rouge() -> dict[str, Metric]:
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rougeL"], use_stemmer=True)
    return {"rouge_l_recall": lambda said, gold: float(scorer.score(gold, said)["rougeL"].recall)}


def _meteor() -> Metric | str:
    """The metric, or why it is not available."""
    from nltk.corpus import wordnet
    from nltk.tokenize import wordpunct_tokenize
    from nltk.translate.meteor_score import meteor_score

    try:
        wordnet.ensure_loaded()
    except LookupError:
        return "needs WordNet: python -m nltk.downloader wordnet omw-1.4"
    return lambda said, gold: float(meteor_score([wordpunct_tokenize(gold)], wordpunct_tokenize(said)))
