"""The result of one evaluation run: one JSON file from which every table is rendered, beside the rows of its items."""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from alm.data.example import DataError
from alm.scoring.statistics import Estimate

Scores = dict[str, Estimate]
LABELS = {
    "loglikelihood": "log-lik.",
    "loglikelihood_mean": "per token",
    "constant_position": "const.",
    "longest_choice": "longest",
    "no_audio_loglikelihood": "no audio",
    "no_audio_official": "no audio",
    "no_audio_exact_match": "no audio",
    "exact_match": "exact",
    "constant_answer": "const.",
}
"""Column heads that are shorter than the names."""
NAME_WIDTH, COUNT_WIDTH, SCORE_WIDTH, CONTROL_WIDTH = 27, 6, 12, 7
LABEL_WIDTH = 33
ALWAYS_SHOWN = ("missing", "unparsed", "truncated")
"""Counts that are printed even when they are zero."""
GAIN, GAIN_WIDTH, GAIN_SCORES = "gain_over_", 22, ("official", "exact_match", "loglikelihood")
"""Controls named `gain_over_CONTROL_SCORE` are printed beside their control, those of at most two of these scores."""


@dataclass(frozen=True)
class Result:
    """One run on one benchmark. Accuracies and rates are fractions; `groups` is field → group → name → estimate.

    `items` is the path of the per-item JSON lines, relative to the result file. `unavailable` says for each score that could not
    be computed why, and what would cure it: a score is never replaced by another under its name.
    """

    benchmark: str
    system: str
    scores: Scores
    groups: dict[str, dict[str, Scores]] = field(default_factory=dict)
    controls: Scores = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    unavailable: dict[str, str] = field(default_factory=dict)
    manifest: dict[str, Any] = field(default_factory=dict)
    items: str = ""

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            **asdict(self),
            "scores": _plain(self.scores),
            "groups": {
                name: {group: _plain(scores) for group, scores in groups.items()}
                for name, groups in self.groups.items()
            },
            "controls": _plain(self.controls),
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "Result":
        """Read back `to_dict`. Raises `KeyError` or `TypeError` for another JSON."""
        groups = {
            name: {group: _estimates(scores) for group, scores in groups.items()}
            for name, groups in data["groups"].items()
        }
        named = {"scores": _estimates(data["scores"]), "groups": groups, "controls": _estimates(data["controls"])}
        return cls(**{**data, **named})


def write_result(result: Result, path: Path | str) -> None:
    """Write atomically: a reader, or a kill, at any moment finds the old file or the whole new one."""
    write_text_atomically(
        Path(path), json.dumps(result.to_dict(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    )


def read_result(path: Path | str) -> Result:
    """Read a result file. Raises `DataError` when it is missing or something else."""
    try:
        return Result.from_dict(json.loads(Path(path).read_text(encoding="utf-8")))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: not a result file of this project ({error})") from error


def write_text_atomically(path: Path, text: str) -> None:
    """Write a temporary file in the same folder, flush it to the disk, and rename it over `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def write_lines_atomically(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write rows as JSON lines, likewise."""
    write_text_atomically(path, "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows))


def render_table(result: Result) -> str:
    """The result as text of at most 100 columns: scores and controls with intervals, counts, then a table per group field.

    Everything is in per cent; in the tables of groups an estimate reads `value low–high` (95 %), a control its value alone.
    """
    items = result.counts.get("items") or (next(iter(result.scores.values())).n if result.scores else 0)
    counts = [(name, value) for name, value in result.counts.items() if value or name in ALWAYS_SHOWN]
    told = ", ".join(_told(name, value, items) for name, value in counts if name != "items")
    lines = [f"{result.benchmark} · {result.system} · {items:,} items", told, ""]
    lines += [_line(name, score) for name, score in result.scores.items()]
    lines += [f"{name:<{LABEL_WIDTH}}   not available: {reason}" for name, reason in result.unavailable.items()]
    lines += ["", *_controls(result)] if result.controls else []
    for name, groups in result.groups.items():
        lines += ["", *_group_table(name, groups, result)]
    return "\n".join(line.rstrip() for line in lines)


def _told(name: str, value: int, items: int) -> str:
    share = f" ({100 * value / items:.1f} %)" if value and name in ALWAYS_SHOWN else ""
    return f"{value:,} {name.replace('_', ' ')}{share}"


def _controls(result: Result) -> list[str]:
    """A line per control; beside it how much more the scores earn, point by point of per cent."""
    scored = [name for name in GAIN_SCORES if name in result.scores][:2]
    gains = any(name.startswith(GAIN) for name in result.controls)
    heads = [f"{'gain of ' + LABELS.get(name, name):>{GAIN_WIDTH}}" for name in scored if gains]
    lines = [f"{'controls':<{LABEL_WIDTH + 9}}{'':<14}{''.join(heads)}"]
    for name, score in result.controls.items():
        if name.startswith(GAIN):
            continue
        cells = []
        for of in scored:
            control = name.removesuffix(f"_{of}")
            gain = result.controls.get(f"{GAIN}{control}_{of}")
            cells.append(f"{_points(gain) if gain else '':>{GAIN_WIDTH}}")
        lines.append(f"{_line(_control_label(name, result), score):<{LABEL_WIDTH + 23}}{''.join(cells)}")
    return lines


def _points(gain: Estimate) -> str:
    return f"{100 * gain.value:+.1f} [{100 * gain.low:+.1f}, {100 * gain.high:+.1f}]"


def _line(label: str, score: Estimate) -> str:
    interval = "" if score.low == score.high else f"  [{100 * score.low:.1f}, {100 * score.high:.1f}]"
    return f"{label:<{LABEL_WIDTH}}{100 * score.value:>7.1f} %{interval}"


def _control_label(name: str, result: Result) -> str:
    chosen = result.manifest.get(name)
    if name == "constant_position" and chosen:
        return f"{name} (no. {chosen})"
    return f"{name} ({chosen:.12})" if name == "constant_answer" and chosen else name


def _group_table(field_name: str, groups: dict[str, Scores], result: Result) -> list[str]:
    names = list(next(iter(groups.values())))
    widths = [
        SCORE_WIDTH if name in result.scores else max(CONTROL_WIDTH, len(LABELS.get(name, name)) + 1) for name in names
    ]
    heads = "".join(f"{LABELS.get(name, name):>{width}}" for name, width in zip(names, widths, strict=True))
    lines = [f"{field_name:<{NAME_WIDTH}}{'items':>{COUNT_WIDTH}}{heads}"]
    for group, scores in sorted(groups.items(), key=lambda entry: -next(iter(entry[1].values())).n):
        n = next(iter(scores.values())).n
        cells = "".join(
            f"{_cell(scores[name], interval=name in result.scores):>{width}}"
            for name, width in zip(names, widths, strict=True)
        )
        label = group if len(group) < NAME_WIDTH else group[: NAME_WIDTH - 2] + "…"
        lines.append(f"{label:<{NAME_WIDTH}}{n:>{COUNT_WIDTH}}{cells}")
    return lines


def _cell(score: Estimate, interval: bool) -> str:
    value = f"{100 * score.value:.1f}".removesuffix(".0") if score.value == 1 else f"{100 * score.value:.1f}"
    return f"{value} {100 * score.low:.0f}–{100 * score.high:.0f}" if interval else value


def _plain(scores: Scores) -> dict[str, dict[str, float]]:
    return {name: score._asdict() for name, score in scores.items()}


def _estimates(scores: dict[str, dict[str, Any]]) -> Scores:
    return {name: Estimate(**score) for name, score in scores.items()}
