"""What a run hears sounds with: found before anything is loaded, so that what is missing is known at once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from alm.data.example import DataError
from alm.scoring.sound.base import Found, Measure, Metric, MetricUnavailable
from alm.scoring.sound.clap import Clap, find_clap, load_clap
from alm.scoring.sound.classifier import Classifier, find_classifier, load_classifier
from alm.scoring.sound.zoo import METRICS, choose

CLAP_SCORES = {
    "clap": "cosine of caption and sound",
    "fd_clap": "squared Fréchet distance of made sounds and recordings, CLAP's embeddings",
}
CLASSIFIER_SCORES = {
    "fd_classifier": "squared Fréchet distance of made sounds and recordings, the classifier's embeddings",
    "kl_recording_made": "nats, KL(recording ‖ made) of the classifier's softmax, audioldm_eval's direction",
    "kl_made_recording": "nats, KL(made ‖ recording), stable-audio-metrics' direction",
}
COMPARING = ("fd_clap", *CLASSIFIER_SCORES)
"""Scores that need the recordings."""
OTHERS = ("clap", "classifier")
"""What `--require` and `--checkpoints` know besides the metrics of the zoo."""


@dataclass(frozen=True)
class Equipment:
    """A CLAP, a classifier and metrics of single sounds as far as they are here; why the others are not."""

    clap: Found | None
    classifier: Found | None
    metrics: Sequence[tuple[Metric, Found]]
    unavailable: dict[str, str]

    @property
    def labels(self) -> dict[str, str | None]:
        """Name and revision of everything that decides a figure, for the result and the resume key."""
        named = {"clap": self.clap, "classifier": self.classifier} | {metric.name: one for metric, one in self.metrics}
        return {name: found.label if found else None for name, found in named.items()}

    @property
    def units(self) -> dict[str, str]:
        """Score name → unit, in the order of the table."""
        listeners = {score: unit for metric, _ in self.metrics for score, unit in metric.scores.items()}
        return {
            **CLAP_SCORES,
            **CLASSIFIER_SCORES,
            **listeners,
            "seconds": "s a sound",
            "stop_rate": "share of sounds that the model ended itself",
        }


class Ears:
    """The equipment, loaded when first used: a run whose sounds are all known loads nothing."""

    def __init__(self, equipment: Equipment, device: str) -> None:
        self.equipment, self.device = equipment, device

    @cached_property
    def clap(self) -> Clap | None:
        """CLAP, where there is one."""
        return None if self.equipment.clap is None else load_clap(self.equipment.clap, self.device)

    @cached_property
    def classifier(self) -> Classifier | None:
        """The classifier, where there is one."""
        return None if self.equipment.classifier is None else load_classifier(self.equipment.classifier, self.device)

    @cached_property
    def metrics(self) -> list[tuple[Metric, Measure]]:
        """The metrics of single sounds."""
        return [(metric, metric.load(found, self.device)) for metric, found in self.equipment.metrics]


def equip(
    clap: str,
    classifier: str,
    metrics: Sequence[str],
    required: Sequence[str] = (),
    checkpoints: Mapping[str, str] | None = None,
    no_recordings: str | None = None,
) -> Equipment:
    """Find all of it. `no_recordings` says why there is nothing to compare with.

    Raises `DataError` for a metric that is unknown or compares with the same sound, and for what is required and not here.
    """
    if unfit := [name for name in (*metrics, *required) if name in METRICS and METRICS[name].compares]:
        raise DataError(f"{unfit[0]} compares with the same sound; a caption's sounds are all different")
    choice = choose(metrics, [name for name in required if name not in OTHERS], checkpoints) if metrics else None
    unavailable = dict(choice.unavailable) if choice else {}
    found: dict[str, Found | None] = {}
    for name, find, given, scores in (
        ("clap", find_clap, clap, CLAP_SCORES),
        ("classifier", find_classifier, classifier, CLASSIFIER_SCORES),
    ):
        try:
            found[name] = find(given)
        except MetricUnavailable as error:
            if name in required:
                raise DataError(f"--require {name}: {error}") from error
            found[name] = None
            unavailable |= dict.fromkeys(scores, str(error))
    if no_recordings:
        unavailable = dict.fromkeys(COMPARING, no_recordings) | unavailable
    return Equipment(found["clap"], found["classifier"], choice.metrics if choice else [], unavailable)
