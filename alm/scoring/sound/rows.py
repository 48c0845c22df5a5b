"""One clip to one row of figures, and rows kept as they come."""

import hashlib
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from alm.data.example import DataError
from alm.scoring.item_log import ItemLog, Row
from alm.scoring.sound.base import Measure, Metric, Pair, Values, Waveform
from alm.scoring.sound.codes import pack
from alm.scoring.sound.sources import Clip, native_rate
from alm.scoring.sound.systems import Made, System
from alm.scoring.speech.words import WordScorer
from codec.audio import AudioError, read_audio, read_bytes, write_audio

Loaded = Sequence[tuple[Metric, Measure]]


def score(pair: Pair, metrics: Loaded, originals: bool = True) -> tuple[Values, Values]:
    """Scores of a reconstruction, and of its original by the metrics that listen to one waveform (where `originals`)."""
    made: Values = {}
    original: Values = {}
    for metric, measure in metrics:
        reference, copy = pair.at(metric.sampling_rate)
        made.update(measure(reference if metric.compares else None, copy))
        if originals and not metric.compares:
            original.update(measure(None, reference))
    return made, original


def row_of(pair: Pair, made: Made, metrics: Loaded, originals: bool, codebook_size: int | None) -> Row:
    """The figures of one clip as JSON: null where a metric is undefined on it."""
    scores, heard = score(pair, metrics, originals)
    packed = None if made.codes is None or codebook_size is None else pack(made.codes, codebook_size)
    return {
        "seconds": pair.seconds,
        "made_seconds": pair.made_seconds,
        "scores": {name: None if math.isnan(value) else value for name, value in scores.items()},
        "original": {name: None if math.isnan(value) else value for name, value in heard.items()},
        "codes": packed,
    }


class Runner:
    """Measures clips one by one; rows of an interrupted run are taken over where original, stored file and key agree."""

    def __init__(
        self,
        system: System,
        metrics: Loaded,
        log: ItemLog,
        *,
        originals: bool = True,
        keep: Callable[[Clip, Made], None] | None = None,
        words: WordScorer | None = None,
    ) -> None:
        self.system, self.metrics, self.log, self.originals, self.keep = system, metrics, log, originals, keep
        self.words = words
        self.codebook_size: int | None = system.identity.get("codebook_size")
        self.problems: dict[str, str] = {}
        self.reused = 0

    def run(self, clips: Iterable[Clip], total: int | None, max_missing: float) -> list[Row]:
        """Rows of all clips that can be read. Raises `DataError` once more than `max_missing` of `total` cannot."""
        rows, seen = [], 0
        for clip in clips:
            seen += 1
            try:
                rows.append(self._one(clip))
            except AudioError as error:
                self.problems[clip.id] = str(error)
                if total is not None:
                    require_readable(self.problems, total, max_missing)
        require_readable(self.problems, total if total is not None else seen, max_missing)
        return rows

    def run_waveform(self, row_id: str, group: str, waveform: Waveform, sampling_rate: int) -> Row:
        """Row of a waveform that no file holds (the length sweep)."""
        digest = hashlib.sha256(waveform.tobytes()).hexdigest()[:16]
        return self._known(row_id, digest) or self._measure(None, row_id, group, digest, waveform, sampling_rate)

    def _one(self, clip: Clip) -> Row:
        data = clip.bytes()
        digest = hashlib.sha256(data).hexdigest()[:16] + self.system.digest(clip)
        if known := self._known(clip.id, digest):
            return known
        name = str(clip.source) if not isinstance(clip.source, bytes) else clip.id
        rate = native_rate(data, name)
        return self._measure(clip, clip.id, clip.group, digest, read_audio(data, rate, name), rate)

    def _known(self, row_id: str, digest: str) -> Row | None:
        row = self.log.rows.get(row_id)
        if row is None or row["digest"] != digest:
            return None
        self.reused += 1
        return row

    def _measure(self, clip: Clip | None, row_id: str, group: str, digest: str, waveform: Waveform, rate: int) -> Row:
        made = self.system.reconstruct(clip, waveform, rate)
        if not len(made.waveform):
            raise AudioError(f"{row_id}: the reconstruction holds no samples")
        if self.keep is not None and clip is not None:
            self.keep(clip, made)
        pair = Pair(waveform, rate, made.waveform, made.sampling_rate)
        figures = row_of(pair, made, self.metrics, self.originals, self.codebook_size)
        row: dict[str, Any] = {"id": row_id, "group": group, "digest": digest, **figures}
        if self.words is not None and clip is not None and (heard := self.words.row(clip.name, pair, self.originals)):
            row["words"] = heard
        self.log.append([row])
        return row


def require_readable(problems: dict[str, str], total: int, max_missing: float) -> None:
    """Raise `DataError`, with the first problem, where more than the share `max_missing` of `total` files has one."""
    if len(problems) > max_missing * total:
        raise DataError(
            f"{len(problems)} of {total} files cannot be read (--max_missing): {next(iter(problems.values()))}"
        )


def joined(clips: Iterable[Clip], seconds: float, sampling_rate: int) -> Waveform:
    """Recordings one after another at `sampling_rate` until they last `seconds`; unreadable ones are passed over."""
    import numpy as np

    parts: list[Waveform] = []
    wanted = round(seconds * sampling_rate)
    for clip in clips:
        try:
            source = clip.source if isinstance(clip.source, bytes) else read_bytes(clip.source)
            parts.append(read_audio(source, sampling_rate, clip.id))
        except AudioError:
            continue  # counted by the run over the clips themselves
        if sum(map(len, parts)) >= wanted:
            break
    return np.concatenate(parts)[:wanted] if parts else np.zeros(0, np.float32)


def sweep(
    runner: Runner, clips: Iterable[Clip], lengths: Sequence[float], seconds: float, sampling_rate: int = 24_000
) -> dict[str, list[Row]]:
    """Rows by length: the same `seconds` of recordings, joined and cut into pieces of each length. Raises `DataError`."""
    if not lengths:
        return {}
    stream = joined(clips, seconds, sampling_rate)
    if len(stream) < max(lengths) * sampling_rate:
        raise DataError(
            f"the recordings joined last {len(stream) / sampling_rate:.1f} s (at most --sweep_seconds {seconds:g}), too short for "
            f"--length_sweep {max(lengths):g}"
        )
    rows: dict[str, list[Row]] = {}
    for length in lengths:
        size, name = round(length * sampling_rate), f"{length:g}"
        pieces = [stream[start : start + size] for start in range(0, len(stream) - size + 1, size)]
        rows[name] = [
            runner.run_waveform(f"sweep/{name}/{i}", f"{name} s", piece, sampling_rate)
            for i, piece in enumerate(pieces)
        ]
    return rows


def save(folder: Path, clip: Clip, made: Made) -> None:
    """Write a reconstruction where `--reconstructions` would look for it."""
    write_audio(folder / f"{clip.id.lstrip('/')}.wav", made.waveform, made.sampling_rate)
