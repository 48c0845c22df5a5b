"""Spoken texts scored one by one: what a recogniser hears in them, whose voice they have, how natural they are."""

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from alm.data.example import DataError
from alm.data.seed_tts import Utterance
from alm.scoring.item_log import ItemLog, Row
from alm.scoring.processes import Processes
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
        """Bytes of an utterance's prompt, where a metric compares with it. Raises `DataError`: what a list names must be there."""
        if item.prompt_audio is None or not any(metric.compares for metric, _ in self.metrics):
            return None
        try:
            data = read_bytes(self.prompts / item.prompt_audio)
            native_rate(data, item.prompt_audio)
        except AudioError as error:
            raise DataError(f"the prompt of {item.id} is needed for speaker similarity (--prompts): {error}") from error
        return data

    def scores(self, item: Utterance, take: Take | None) -> tuple[str | None, Scores]:
        """Transcript and figures of a take. Raises `AudioError` where there is none, or its file cannot be read."""
        if take is None:
            raise AudioError("there is neither sound nor transcript")
        ended: Scores = {} if take.stopped is None else {"stop_rate": float(take.stopped)}
        if take.path is None:
            return take.transcript, ended
        data, name = read_bytes(take.path), str(take.path)
        rate = native_rate(data, name)
        waveform = read_audio(data, rate, name)
        heard = take.transcript
        if heard is None and self.hear is not None:
            heard = self.hear(resample(waveform, rate, SAMPLING_RATE))
        return heard, self._figures(item, waveform, rate) | {"seconds": len(waveform) / rate} | ended

    def _figures(self, item: Utterance, waveform: Waveform, rate: int) -> Scores:
        found: Scores = {}
        prompt = self.prompt(item)
        for metric, measure in self.metrics:
            if metric.compares and prompt is None:
                found |= dict.fromkeys(metric.scores)
                continue
            reference = read_audio(prompt, metric.sampling_rate, "prompt") if metric.compares and prompt else None
            values = measure(reference, resample(waveform, rate, metric.sampling_rate))
            found |= {name: None if math.isnan(value) else value for name, value in values.items()}
        return found

    def words(self, item: Utterance, heard: str | None) -> tuple[dict[str, dict[str, int]], Scores]:
        """Word errors by rule, and the utterance's own rate by the official one."""
        if heard is None:
            return {}, {}
        got = self.simplify(heard)
        errors = {rule: count(item.text, got) for rule, count in self.counters.items()}
        rate: Scores = {"wer_macro": errors["seed"].errors / errors["seed"].words} if "seed" in errors else {}
        return {rule: one._asdict() for rule, one in errors.items()}, rate


def fingerprints(items: Sequence[Utterance], takes: Mapping[str, Take], listener: Listener) -> dict[str, str | None]:
    """Digests over everything that decides each row but the listener: text, sound, stored transcript, prompt.

    None for an item without a take that can be read. Raises `DataError` for a prompt that is not there.
    """
    found: dict[str, str | None] = {item.id: None for item in items}
    for item in items:
        prompt, take = listener.prompt(item), takes.get(item.id)
        with suppress(AudioError):  # told when it is listened to
            if take is not None:
                data = None if take.path is None else read_bytes(take.path)
                of = [item.text, take.transcript, take.stopped, *(one and _sha(one) for one in (data, prompt))]
                found[item.id] = digest(of)
    return found


def still_valid(of: Mapping[str, str | None]) -> Callable[[Row], bool]:
    """Whether a row of a former run has the same fingerprint, or is of an item that this run leaves out; for `ItemLog`."""
    return lambda row: row["id"] not in of or (row["of"] is not None and row["of"] == of[row["id"]])


def listen(
    items: Sequence[Utterance],
    takes: Mapping[str, Take],
    of: Mapping[str, str | None],
    listener: Listener,
    log: ItemLog,
    allow_missing: bool,
    processes: Processes,
) -> list[Row]:
    """Rows of all items in their order, of which `log` may hold some; `of` are their fingerprints.

    Raises `DataError` for a file that cannot be read. Where that is allowed it is counted instead, as is an utterance without a take:
    as if nothing had been heard. (The official script leaves such utterances out, so that a system gains by their loss.)
    """
    for (item,) in processes.share([(item,) for item in items], "listening", "utterance"):
        if item.id not in log.rows:
            log.append([_row(item, takes.get(item.id), listener, allow_missing) | {"of": of.get(item.id)}])
    processes.collect(log, [item.id for item in items])
    return [log.rows[item.id] for item in items]


def _row(item: Utterance, take: Take | None, listener: Listener, allow_missing: bool) -> Row:
    missing: str | None = None
    heard: str | None = ""
    scores: Scores = {}
    try:
        heard, scores = listener.scores(item, take)
    except AudioError as error:
        if not allow_missing:
            raise DataError(f"utterance {item.id}: {error} (--allow_missing counts it as spoken in silence)") from error
        missing = str(error)
    errors, rate = listener.words(item, heard)
    return {
        "id": item.id,
        "said": item.text,
        "heard": heard,
        "errors": errors,
        "scores": rate | scores,
        "missing": missing,
    }


def _sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
