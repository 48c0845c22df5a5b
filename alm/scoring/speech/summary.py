"""Rows of spoken texts to their result: word error rates by both rules, and means of the other figures."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from alm.scoring.item_log import Row
from alm.scoring.results import Result, Scores
from alm.scoring.sound.base import Metric
from alm.scoring.statistics import bootstrap, bootstrap_ratio, estimate

WORD_UNITS = {
    "wer_macro": "errors per word by SEED-TTS-eval's rule, mean of the utterances (the official figure)",
    "wer_pooled": "errors per word by the same rule, all errors over all words",
    "wer_corpus": "errors per word in Whisper's normal form, all errors over all words",
}
SOUND_UNITS = {"seconds": "s an utterance", "stop_rate": "share of utterances that the model ended itself"}


def units(metrics: Sequence[Metric]) -> dict[str, str]:
    """Score name → unit, in the order of the table."""
    return WORD_UNITS | {score: unit for metric in metrics for score, unit in metric.scores.items()} | SOUND_UNITS


def summarise(rows: Sequence[Row]) -> Scores:
    """Every score over the rows where it is defined, with its interval."""
    found: Scores = {}
    for name, rule in (("wer_pooled", "seed"), ("wer_corpus", "whisper")):
        counts = [row["errors"][rule] for row in rows if rule in row["errors"]]
        if any(one["words"] for one in counts):
            found[name] = bootstrap_ratio([one["errors"] for one in counts], [one["words"] for one in counts])
    for name in dict.fromkeys(name for row in rows for name in row["scores"]):
        values = [row["scores"][name] for row in rows if row["scores"].get(name) is not None]
        if values:
            # rates that all happen to be 0 or 1 are still no shares
            found[name] = estimate(values) if name == "stop_rate" else bootstrap(values)
    return found


def counts(rows: Sequence[Row]) -> dict[str, int]:
    """Utterances, those missing, those with more than half of their words wrong, and where a metric was undefined."""
    there = [row for row in rows if row["missing"] is None]
    undefined = Counter(f"{name}_undefined" for row in there for name, value in row["scores"].items() if value is None)
    rates = [row["scores"]["wer_macro"] for row in rows if "wer_macro" in row["scores"]]
    over = {"wer_over_half": sum(rate > 0.5 for rate in rates)} if rates else {}
    return {"items": len(rows), "missing": len(rows) - len(there), **over, **undefined}


def build(
    language: str,
    system: str,
    rows: Sequence[Row],
    metrics: Sequence[Metric],
    unavailable: Mapping[str, str],
    manifest: Mapping[str, Any],
    items: str,
) -> Result:
    """The result of a run; scores stand in the order of their units."""
    found, named = summarise(rows), units(metrics)
    return Result(
        benchmark=f"SEED-TTS {language}",
        system=system,
        scores={name: found[name] for name in named if name in found},
        counts=counts(rows),
        unavailable=dict(unavailable),
        manifest={**manifest, "units": named},
        items=items,
    )
