"""The one table from names to metrics, and the choice of a run."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from alm.data.example import DataError
from alm.scoring.sound.aesthetics import AUDIOBOX
from alm.scoring.sound.base import Found, Metric, MetricUnavailable
from alm.scoring.sound.fidelity import LOG_MEL, PESQ, STOI
from alm.scoring.sound.naturalness import DISTILLMOS, UTMOS
from alm.scoring.sound.speaker import SIM, SIM_GE2E, SIM_XVECTOR
from alm.scoring.sound.voicing import VUV_F1, VUV_F1_TINY

METRICS = {
    metric.name: metric
    for metric in (
        *(LOG_MEL, STOI, PESQ, VUV_F1, UTMOS, SIM, AUDIOBOX),
        *(VUV_F1_TINY, DISTILLMOS, SIM_XVECTOR, SIM_GE2E),
    )
}


class Choice(NamedTuple):
    """Metrics that can run, each with where it was found, and why the others cannot (by score name)."""

    metrics: list[tuple[Metric, Found]]
    unavailable: dict[str, str]


def choose(
    names: Sequence[str] | None = None, required: Sequence[str] = (), checkpoints: Mapping[str, str] | None = None
) -> Choice:
    """Find the metrics called `names`; without names all but the stand-ins, and `"all"` is really all.

    `checkpoints` are the user's own paths by metric. Raises `DataError` for an unknown name, and for a metric of `required`
    that cannot run here.
    """
    checkpoints = checkpoints or {}
    for name in (*(names or ()), *required, *checkpoints):
        if name not in METRICS and name != "all":
            raise DataError(f"there is no metric {name!r}; there are {', '.join(METRICS)} and 'all'")
    wanted = [name for name, metric in METRICS.items() if not metric.stand_in] if not names else list(names)
    if "all" in wanted or "all" in required:
        wanted = list(METRICS)
    found: list[tuple[Metric, Found]] = []
    unavailable: dict[str, str] = {}
    for name in dict.fromkeys((*wanted, *(n for n in required if n != "all"))):
        metric = METRICS[name]
        try:
            found.append((metric, metric.find(checkpoints.get(name))))
        except MetricUnavailable as error:
            if name in required or "all" in required:
                raise DataError(f"--require {name}: {error}") from error
            unavailable.update(dict.fromkeys(metric.scores, str(error)))
    return Choice(found, unavailable)
