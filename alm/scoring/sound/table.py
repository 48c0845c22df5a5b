"""A reconstruction's result as text, each score in its own unit. Imports nothing heavy: stored results are shown at once."""

from alm.scoring.results import Result
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
        lines += ["", "the originals"]
        lines += [f"{name:<{NAME}}{_value(score)}  n {score.n:,}" for name, score in result.controls.items()]
    for field, groups in result.groups.items():
        names = list(dict.fromkeys(name for scores in groups.values() for name in scores))
        lines += ["", f"by {field}"]
        for name in names:
            lines.append(f"  {name} ({named.get(name, '')})")
            for group, scores in groups.items():
                told = f"{_value(scores[name])}  n {scores[name].n:,}" if name in scores else "undefined"
                lines.append(f"    {group:<{NAME}}{told}")
    return "\n".join(line.rstrip() for line in lines)


def _value(score: Estimate) -> str:
    interval = "" if score.low == score.high else f" [{score.low:.3f}, {score.high:.3f}]"
    return f"{score.value:>9.3f}{interval:<{NUMBER - 9}}"
