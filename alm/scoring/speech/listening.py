"""Spoken texts scored one by one: what a recogniser hears in them, whose voice they have, how natural they are."""

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from alm.data.example import DataError
from alm.data.seed_tts import Utterance
from alm.scoring.item_log import ItemLog, Row
from alm.scoring.sound.base import Measure, Metric, Waveform
from alm.scoring.sound.sources import native_rate
from alm.scoring.speech.recognition import SAMPLING_RATE
from alm.scoring.speech.words import WordErrors
from alm.vocabulary import digest
from codec.audio import AUDIO_SUFFIXES, AudioError, read_audio, read_bytes, resample

Scores = dict[str, float | None]


class Take(NamedTuple):
    """What there is of an utterance: its file, its stored transcript, whether the model ended it by itself (where that is known)."""

    path: Path | None = None
    transcript: str | None = None
    stopped: bool | None = None


def find_takes(items: Sequence[Utterance], folder: Path) -> dict[str, Take]:
    """A system's files `folder/<id>.wav` (or .flac, …), by id."""
    found: dict[str, Take] = {}
    for item in items:
        path = next((p for suffix in AUDIO_SUFFIXES if (p := folder / f"{item.id}{suffix}").is_file()), None)
        if path is not None:
            found[item.id] = Take(path)
    return found


def require_takes(items: Sequence[Utterance], takes: Mapping[str, Take], where: str) -> None:
    """Raise `DataError` where utterances have nothing to be scored."""
    lost = [item.id for item in items if item.id not in takes]
    if lost:
        raise DataError(
            f"{where} lacks {len(lost)} of {len(items)} utterances (first: {lost[0]}); --allow_missing counts them, as if nothing "
            "had been heard in them"
        )


@dataclass(frozen=True)
class Listener:
    """What scores a take.

    Args:
        hear: a recogniser; without one only stored transcripts have words.
        simplify: what a transcript passes through before it is compared.
        counters: word errors by rule, `seed` and `whisper`.
        metrics: those that compare get the utterance's prompt as their reference, and are undefined without.
        prompts: folder of the prompts.
    """

    hear: Callable[[Waveform], str] | None
    simplify: Callable[[str], str]
    counters: Mapping[str, Callable[[str, str], WordErrors]]
    metrics: Sequence[tuple[Metric, Measure]]
    prompts: Path

    def prompt(self, item: Utterance) -> bytes | None:
        """Bytes of an utterance's prompt, where a metric compares with it. Raises `DataError`: a list's own file must be there."""
        if item.prompt_audio is None or not any(metric.compares for metric, _ in self.metrics):
            return None
        try:
            return read_bytes(self.prompts / item.prompt_audio)
        except AudioError as error:
            raise DataError(f"the prompt of {item.id} is needed for speaker similarity (--prompts): {error}") from error

    def scores(self, take: Take, data: bytes, prompt: bytes | None) -> tuple[str | None, Scores]:
        """Transcript and figures of a file's bytes. Raises `AudioError`."""
        rate = native_rate(data, str(take.path))
        waveform = read_audio(data, rate, str(take.path))
        heard = take.transcript
        if heard is None and self.hear is not None:
            heard = self.hear(resample(waveform, rate, SAMPLING_RATE))
        found: Scores = {"seconds": len(waveform) / rate}
        for metric, measure in self.metrics:
            if metric.compares and prompt is None:
                found |= dict.fromkeys(metric.scores)
                continue
            reference = read_audio(prompt, metric.sampling_rate, "prompt") if metric.compares and prompt else None
            values = measure(reference, resample(waveform, rate, metric.sampling_rate))
            found |= {name: None if math.isnan(value) else value for name, value in values.items()}
        return heard, found

    def words(self, item: Utterance, heard: str | None) -> tuple[dict[str, dict[str, int]], Scores]:
        """Word errors by rule, and the utterance's own rate by the official one."""
        if heard is None:
            return {}, {}
        got = self.simplify(heard)
        errors = {rule: count(item.text, got) for rule, count in self.counters.items()}
        rate: Scores = {"wer_macro": errors["seed"].errors / errors["seed"].words} if "seed" in errors else {}
        return {rule: one._asdict() for rule, one in errors.items()}, rate


def listen(
    items: Sequence[Utterance], takes: Mapping[str, Take], listener: Listener, log: ItemLog, allow_missing: bool
) -> list[Row]:
    """Rows of all items in their order; those of an interrupted run are taken over where text, file and transcript are the same.

    Raises `DataError` for a file that cannot be read. Where that is allowed it is counted instead, as is an utterance without a take:
    as if nothing had been heard. (The official script leaves such utterances out, so that a system gains by their loss.)
    """
    return [
        _row(item, takes.get(item.id), listener, log, allow_missing)
        for item in tqdm(items, desc="listening", unit="utterance")
    ]


def _row(item: Utterance, take: Take | None, listener: Listener, log: ItemLog, allow_missing: bool) -> Row:
    missing: str | None = None
    of: str | None = None
    heard: str | None = ""
    scores: Scores = {}
    prompt = listener.prompt(item)
    try:
        if take is None:
            raise AudioError("there is neither sound nor transcript")
        data = None if take.path is None else read_bytes(take.path)
        of = digest([item.text, take.transcript, take.stopped, *(one and _sha(one) for one in (data, prompt))])
        if (known := log.rows.get(item.id)) is not None and known["of"] == of:
            return known
        heard, scores = (take.transcript, {}) if data is None else listener.scores(take, data, prompt)
        if take.stopped is not None:
            scores["stop_rate"] = float(take.stopped)
    except AudioError as error:
        if not allow_missing:
            raise DataError(f"utterance {item.id}: {error} (--allow_missing counts it as spoken in silence)") from error
        missing, of = str(error), None  # looked for again by the next run
    errors, rate = listener.words(item, heard)
    row = {"id": item.id, "said": item.text, "heard": heard, "errors": errors, "scores": rate | scores}
    log.append([row | {"missing": missing, "of": of}])
    return log.rows[item.id]


def _sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
