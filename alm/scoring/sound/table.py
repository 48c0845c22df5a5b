"""A reconstruction's result as text, each score in its own unit. Imports nothing heavy: stored results are shown at once."""

from collections.abc import Mapping
from pathlib import Path

from alm.scoring.results import Result, read_result
from alm.scoring.statistics import Estimate

NAME, NUMBER = 18, 22


def render(result: Result) -> str:
    """The result as text: each score in its own unit with its 95 % interval and n, then a table per group field."""
    named = result.manifest["units"]
    told = ", ".join(f"{n:,} {name.replace('_', ' ')}" for name, n in result.counts.items() if n or name == "missing")
    lines = [f"{result.benchmark} · {result.system}", told, ""]
    lines += [
        f"{name:<{NAME}}{_value(score)}  n {score.n:<7,} {named.get(name, '')}" for name, score in result.scores.items()
    ]
    reasons: dict[str, list[str]] = {}
    for name, reason in result.unavailable.items():
        reasons.setdefault(reason, []).append(name)
    lines += [f"{', '.join(names)}: not available: {reason}" for reason, names in reasons.items()]
    if result.controls:
        wide = max(NAME, *(len(name) + 1 for name in result.controls))
        lines += ["", "controls" if result.manifest.get("controls") else "the originals"]
        lines += [f"{name:<{wide}}{_value(score)}  n {score.n:,}" for name, score in result.controls.items()]
    for field, groups in result.groups.items():
        names = list(dict.fromkeys(name for scores in groups.values() for name in scores))
        lines += ["", f"by {field}"]
        for name in names:
            lines.append(f"  {name} ({named.get(name, '')})")
            for group, scores in groups.items():
                told = f"{_value(scores[name])}  n {scores[name].n:,}" if name in scores else "undefined"
                lines.append(f"    {group:<{NAME}}{told}")
    return "\n".join(line.rstrip() for line in lines)


def compare(results: Mapping[str, Path], reasons: Mapping[str, str]) -> str:
    """Markdown table of stored results, a row each, with 95 % intervals; rows named in `reasons` have theirs instead.

    Scores that no result has are named below the table, with the reason.
    """
    found = {name: read_result(path) for name, path in results.items() if name not in reasons}
    scores = list(dict.fromkeys(score for result in found.values() for score in result.scores))
    lines = [
        "| codec | frames/s · codebooks × codes | " + " | ".join(scores) + " |",
        "|---|---|" + "---|" * len(scores),
    ]
    for name in results:
        if name in reasons:
            lines.append(f"| {name} | not measured: {reasons[name].replace('|', '/')} |" + " |" * len(scores))
            continue
        result = found[name]
        rate, books, size = (result.manifest.get(key) for key in ("frame_rate", "num_codebooks", "codebook_size"))
        cells = [_value(result.scores[s]).strip() if s in result.scores else "undefined" for s in scores]
        lines.append(f"| {name} | {rate:g} · {books} × {size} | " + " | ".join(cells) + " |")
    controls = {score: value for result in found.values() for score, value in result.controls.items()}
    if controls:
        cells = [_value(controls[s]).strip() if s in controls else "" for s in scores]
        lines.append("| originals | | " + " | ".join(cells) + " |")
    missing = {
        score: why for result in found.values() for score, why in result.unavailable.items() if score not in scores
    }
    return "\n".join([*lines, "", *(f"{score}: not available: {why}" for score, why in missing.items())]).rstrip()


def _value(score: Estimate) -> str:
    interval = "" if score.low == score.high else f" [{score.low:.3f}, {score.high:.3f}]"
    return f"{score.value:>9.3f}{interval:<{NUMBER - 9}}"
