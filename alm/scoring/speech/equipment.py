"""What a run scores spoken texts with: found before anything is loaded, so that what is missing is known at once."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from alm.data.example import DataError
from alm.scoring.sound.base import Found, Metric, MetricUnavailable
from alm.scoring.sound.zoo import choose
from alm.scoring.speech.listening import Listener
from alm.scoring.speech.recognition import find_recogniser, load_recogniser
from alm.scoring.speech.seed_rule import seed_counter, simplifier
from alm.scoring.speech.summary import SOUND_UNITS, WORD_UNITS
from alm.scoring.speech.words import WordErrors, word_counter

SAME_WORDS = ("log_mel_l1", "stoi", "pesq", "vuv_f1", "vuv_f1_tiny")
"""Metrics that compare a recording with another of the same words, which a prompt is not."""


@dataclass(frozen=True)
class Equipment:
    """A recogniser, counters of word errors and metrics as far as they are here; why the others are not."""

    language: str
    recogniser: Found | None
    simplify: Callable[[str], str]
    counters: Mapping[str, Callable[[str, str], WordErrors]]
    metrics: Sequence[tuple[Metric, Found]]
    unavailable: dict[str, str]

    @property
    def chosen(self) -> list[Metric]:
        """The metrics."""
        return [metric for metric, _ in self.metrics]

    @property
    def labels(self) -> dict[str, str | None]:
        """Name and revision of everything that decides a figure, for the result and the resume key."""
        asr = {"asr": self.recogniser.label if self.recogniser else None}
        return asr | {metric.name: found.label for metric, found in self.metrics}

    def load(self, device: str, prompts: Path) -> Listener:
        """Load it all; `prompts` is the folder of the list's prompts."""
        hear = None if self.recogniser is None else load_recogniser(self.recogniser, device, self.language)
        metrics = [(metric, metric.load(found, device)) for metric, found in self.metrics]
        return Listener(hear, self.simplify, self.counters, metrics, prompts)


def equip(
    language: str,
    asr: str | None,
    words_required: bool,
    metrics: Sequence[str],
    required: Sequence[str] = (),
    checkpoints: Mapping[str, str] | None = None,
    lacking: Mapping[str, str] | None = None,
) -> Equipment:
    """Find recogniser, counters and metrics.

    `asr` None: stored transcripts are scored. `lacking` says why there is no `sound`, no `prompt` to compare with, or no `stop_rate`.
    Raises `DataError` for an unknown metric, one that a prompt cannot serve, and for what is required and not here.
    """
    lacking = lacking or {}
    if unfit := [name for name in (*metrics, *required) if name in SAME_WORDS]:
        raise DataError(f"{unfit[0]} compares with a recording of the same words; a list's prompt says others")
    choice = choose(metrics, required, checkpoints)
    unavailable, fit = dict(choice.unavailable), []
    for metric, found in choice.metrics:
        why = lacking.get("sound") or (lacking.get("prompt") if metric.compares else None)
        if why and metric.name in required:
            raise DataError(f"--require {metric.name}: {why}")
        fit += [] if why else [(metric, found)]
        unavailable |= dict.fromkeys(metric.scores, why) if why else {}
    if "sound" in lacking:
        unavailable |= dict.fromkeys((*SOUND_UNITS, *unavailable), lacking["sound"])
    if "stop_rate" in lacking:
        unavailable["stop_rate"] = lacking["stop_rate"]
    try:
        counters = {"seed": seed_counter(language), "whisper": word_counter(language)}
        simplify = simplifier(language)
        recogniser = None if asr is None else find_recogniser(asr)
    except MetricUnavailable as error:
        if words_required:
            raise DataError(f"word errors were asked for (--asr, --transcripts): {error}") from error
        unavailable |= dict.fromkeys(WORD_UNITS, str(error))
        return Equipment(language, None, str, {}, fit, unavailable)
    return Equipment(language, recogniser, simplify, counters, fit, unavailable)
