"""Rows of clips to the result: means with bootstrap intervals, codebooks over the whole set."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from alm.scoring.item_log import Row
from alm.scoring.results import Result, Scores
from alm.scoring.sound.base import Metric
from alm.scoring.sound.codes import CodeCounts, Use, unpack
from alm.scoring.sound.zoo import Choice
from alm.scoring.speech.words import SCORES, WordErrors, rates
from alm.scoring.statistics import Estimate, bootstrap

WORD_UNITS = {"wer_corpus": "errors per word", "wer_macro": "errors per word, mean of the clips"}
CODE_UNITS = {"codebook_use": "share of codes", "perplexity_share": "share of codes", "perplexity": "codes"}


def units(metrics: Sequence[Metric], codec: bool) -> dict[str, str]:
    """Score name → unit, in the order of the table."""
    named = {score: unit for metric in metrics for score, unit in metric.scores.items()}
    return named | WORD_UNITS | (CODE_UNITS if codec else {})


def summarise(rows: Sequence[Row], identity: Mapping[str, Any]) -> Scores:
    """Mean of each score over the rows where it is defined, and the use of the codebooks (their mean, where there are several)."""
    names = list(dict.fromkeys(name for row in rows for name in row["scores"]))
    scores: Scores = {}
    for name in names:
        values = [row["scores"][name] for row in rows if row["scores"].get(name) is not None]
        if values:
            scores[name] = bootstrap(values)
    scores |= _word_rates(rows, "made")
    if (use := codebook_use(rows, identity)) is not None:
        scores |= _code_scores(use, identity["codebook_size"])
    return scores


def originals(rows: Sequence[Row]) -> Scores:
    """The same of the originals, for the metrics that listen to one waveform: what a perfect codec would score."""
    return summarise([{"scores": row["original"], "codes": None} for row in rows], {}) | _word_rates(rows, "original")


def _word_rates(rows: Sequence[Row], which: str) -> Scores:
    heard = [row["words"][which] for row in rows if which in row.get("words", ())]
    return rates([WordErrors(one["errors"], one["words"]) for one in heard])


def codebook_use(rows: Sequence[Row], identity: Mapping[str, Any]) -> list[Use] | None:
    """Use of each codebook by the rows' codes, or None where there are none."""
    if not any(row["codes"] for row in rows):
        return None
    counts = CodeCounts(identity["num_codebooks"], identity["codebook_size"])
    for row in rows:
        counts.add(unpack(row["codes"]))
    return counts.use()


def codebook_groups(rows: Sequence[Row], identity: Mapping[str, Any]) -> dict[str, Scores]:
    """Figures of every codebook alone; none where a codec has only one."""
    use = codebook_use(rows, identity) or []
    return {str(k): _code_scores([one], identity["codebook_size"]) for k, one in enumerate(use)} if len(use) > 1 else {}


def counts(rows: Sequence[Row], missing: Mapping[str, int]) -> dict[str, int]:
    """Clips, what could not be measured, where lengths differed by over a millisecond, and where a metric was undefined."""
    undefined = Counter(f"{name}_undefined" for row in rows for name, value in row["scores"].items() if value is None)
    return {
        "items": len(rows) + sum(missing.values()),
        **missing,
        "original_cut": sum(row["seconds"] - row["made_seconds"] > 1e-3 for row in rows),
        "reconstruction_cut": sum(row["made_seconds"] - row["seconds"] > 1e-3 for row in rows),
        **undefined,
    }


def build(
    system: str,
    rows: Sequence[Row],
    identity: Mapping[str, Any],
    choice: Choice,
    *,
    missing: Mapping[str, int],
    swept: Mapping[str, Sequence[Row]],
    manifest: Mapping[str, Any],
    items: str,
    words: str | None = None,
) -> Result:
    """The result of a run. `identity` is the system's; without a codec in it the codebook figures are unavailable.

    `words` says why there are no word error rates, where there are none.
    """
    codec = "codebook_size" in identity
    why = "stored reconstructions have no codes; measure them with --codec"
    groups: dict[str, dict[str, Scores]] = {
        "folder": {
            group: summarise([row for row in rows if row["group"] == group], identity)
            for group in dict.fromkeys(row["group"] for row in rows)
        }
    }
    if books := codebook_groups(rows, identity):
        groups["codebook"] = books
    if swept:
        groups["seconds"] = {name: summarise(chosen, identity) for name, chosen in swept.items()}
    return Result(
        benchmark="codec reconstruction",
        system=system,
        scores=summarise(rows, identity),
        groups=groups,
        controls=originals(rows),
        counts=counts(rows, missing),
        unavailable=choice.unavailable
        | ({} if codec else dict.fromkeys(CODE_UNITS, why))
        | ({} if words is None else dict.fromkeys(SCORES, words)),
        manifest={
            **manifest,
            "units": units([metric for metric, _ in choice.metrics], codec),
            "lengths": "original and reconstruction cut to the shorter, from the beginning",
            "resampler": "soxr HQ",
            "codebook": [use._asdict() for use in codebook_use(rows, identity) or []],
        },
        items=items,
    )


def _code_scores(use: Sequence[Use], size: int) -> Scores:
    def mean(values: Sequence[float]) -> Estimate:
        value = sum(values) / len(values)
        return Estimate(value, value, value, use[0].n)

    return {
        "codebook_use": mean([one.used for one in use]),
        "perplexity_share": mean([one.perplexity / size for one in use]),
        "perplexity": mean([one.perplexity for one in use]),
    }
