"""Rows of captions to their result: means with intervals, Fréchet distances of the whole sets, controls beside them."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from alm.scoring.item_log import Row
from alm.scoring.results import Result, Scores
from alm.scoring.sound.distributions import frechet_distance, frechet_estimate
from alm.scoring.statistics import Estimate, bootstrap_ratio, estimate
from alm.scoring.text_to_audio.equipment import COMPARING, Equipment
from alm.scoring.text_to_audio.hearing import unpack
from alm.scoring.text_to_audio.scores import CONTROLS, Scored

SPACES = {"fd_clap": "clap", "fd_classifier": "embedding"}
"""Fréchet distance → the key of a sound's row that it is computed on."""


def means(rows: Sequence[Row], of: Callable[[Row], Mapping[str, float | None]]) -> Scores:
    """Mean of each figure over the rows where it is defined; captions of one clip are resampled together."""
    names = dict.fromkeys(name for row in rows for name in of(row))
    found: Scores = {}
    for name in names:
        by_clip: dict[str, list[float]] = {}
        for row in rows:
            if (value := of(row).get(name)) is not None:
                by_clip.setdefault(row["clip"], []).append(value)
        if not by_clip:
            continue
        values = list(by_clip.values())
        if all(len(one) == 1 for one in values):
            found[name] = estimate([one[0] for one in values])
        else:
            found[name] = bootstrap_ratio([sum(one) for one in values], [len(one) for one in values])
    return found


def distances(first: Sequence[Row], second: Sequence[Row], interval: bool) -> Scores:
    """Fréchet distances of two sets of sounds in each space that they have; without `interval` both bounds are the value."""
    found: Scores = {}
    for name, key in SPACES.items():
        sides = [[unpack(row[key]) for row in rows if row[key] is not None] for rows in (first, second)]
        if min(map(len, sides)) < 2:
            continue
        a, b = (np.stack(side) for side in sides)
        found[name] = frechet_estimate(a, b) if interval else _bare(frechet_distance(a, b), len(a))
    return found


def controls(scored: Scored) -> Scores:
    """Every figure of every control as `<control>_<figure>`."""
    found: Scores = {}
    for name in CONTROLS:
        rows = [row for row in scored.rows if name in row["controls"]]
        named = means(rows, lambda row, name=name: row["controls"][name])  # type: ignore[misc]
        if name == "ground_truth" and rows:
            named |= distances(scored.recordings[::2], scored.recordings[1::2], interval=False)
        if name == "noise" and rows:
            named |= distances(scored.noise, scored.recordings, interval=False)
        found |= {f"{name}_{score}": value for score, value in named.items()}
    return found


def counts(scored: Scored) -> dict[str, int]:
    """Captions and clips, sounds and recordings missing, sounds cut at the longest duration, and where a figure was undefined."""
    rows = scored.rows
    undefined = Counter(f"{name}_undefined" for row in rows for name, value in row["scores"].items() if value is None)
    known = [row["scores"]["stop_rate"] for row in rows if "stop_rate" in row["scores"]]
    forced = {"forced_ends": known.count(0.0)} if known else {}
    clips = len({row["clip"] for row in rows})
    missing = {"missing": len(scored.missing), "recordings_missing": len(scored.lost)}
    return {"items": len(rows), "clips": clips, **missing, **forced, **undefined}


def build(
    name: str, system: str, scored: Scored, equipment: Equipment, manifest: Mapping[str, Any], items: str
) -> Result:
    """The result of a run; scores stand in the order of their units."""
    found = means(scored.rows, lambda row: row["scores"]) | distances(scored.made, scored.recordings, interval=True)
    unavailable = dict(equipment.unavailable)
    if "stop_rate" not in found:
        unavailable["stop_rate"] = (
            "stored sounds do not tell whether their model ended them: it is told of --model alone"
        )
    few = f"{len(scored.recordings)} recordings could be read; two are needed at least (--recordings)"
    unavailable |= {score: few for score in COMPARING if score not in found and score not in unavailable}
    return Result(
        benchmark=f"text to audio, {name}",
        system=system,
        scores={score: found[score] for score in equipment.units if score in found},
        controls=controls(scored),
        counts=counts(scored),
        unavailable=unavailable,
        manifest={**manifest, "units": equipment.units, "controls": CONTROLS if scored.rows[0]["controls"] else None},
        items=items,
    )


def _bare(value: float, n: int) -> Estimate:
    return Estimate(value, value, value, n)
