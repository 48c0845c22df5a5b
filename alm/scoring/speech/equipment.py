"""What a run scores spoken texts with: found before anything is loaded, so that what is missing is known at once."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from alm.data.example import DataError
from alm.scoring.sound.base import Found, Metric, MetricUnavailable
from alm.scoring.sound.zoo import choose
from alm.scoring.speech.listening import Listener
from alm.scoring.speech.recognition import DEFAULT, PARAFORMER, find_recogniser, load_recogniser
from alm.scoring.speech.seed_rule import seed_counter, simplifier
from alm.scoring.speech.summary import SOUND_UNITS, WORD_UNITS
from alm.scoring.speech.words import WordErrors, word_counter

RECOGNISERS = {"en": DEFAULT, "zh": PARAFORMER}
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
    metrics: Sequence[str],
    required: Sequence[str] = (),
    checkpoints: Mapping[str, str] | None = None,
    *,
    transcripts: bool = False,
    no_sound: str | None = None,
    no_prompt: str | None = None,
) -> Equipment:
    """Find recogniser, counters and metrics.

    `asr` None is the benchmark's own recogniser. `transcripts`: what was heard is stored, and no recogniser is needed. `no_sound` and
    `no_prompt` say why there is nothing for metrics of sound, or for those that compare with a prompt. Raises `DataError` for an
    unknown metric, one that a prompt cannot serve, and for a recogniser or a metric that was named and is not here.
    """
    if unfit := [name for name in (*metrics, *required) if name in SAME_WORDS]:
        raise DataError(f"{unfit[0]} compares with a recording of the same words; a list's prompt says others")
    choice = choose(metrics, required, checkpoints)
    unavailable = dict(choice.unavailable)
    fit = []
    for metric, found in choice.metrics:
        why = no_sound or (no_prompt if metric.compares else None)
        fit += [] if why else [(metric, found)]
        unavailable |= dict.fromkeys(metric.scores, why) if why else {}
    if no_sound:
        unavailable |= dict.fromkeys((*SOUND_UNITS, *unavailable), no_sound)
    try:
        counters = {"seed": seed_counter(language), "whisper": word_counter(language)}
        simplify = simplifier(language)
        recogniser = None if transcripts else find_recogniser(asr or RECOGNISERS[language])
    except MetricUnavailable as error:
        if asr:
            raise DataError(f"--asr {asr}: {error}") from error
        if transcripts:
            raise
        unavailable |= dict.fromkeys(WORD_UNITS, str(error))
        return Equipment(language, None, str, {}, fit, unavailable)
    return Equipment(language, recogniser, simplify, counters, fit, unavailable)
