"""The captioning loop: every clip once, its row on the disk before the next, whatever kills the run."""

from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from alm.captioning.inputs import SourceClip
from alm.captioning.prompts import instruction, repair
from alm.captioning.structure import StructureError, parse
from alm.chat.backend import Backend, ClipError, Turn
from alm.data.example import DataError
from alm.scoring.item_log import ItemLog, Row
from codec.audio import AudioError, read_audio

KEPT_REPLY = 2_000
"""Characters of a bad reply that are shown to the model again, and kept with a failure."""
HOPELESS = 20
"""So many failures and not one caption: something is wrong with the model, and the rest would be paid for in vain."""


@dataclass(frozen=True)
class Limits:
    """`retries` after a reply that breaks a rule; `max_failures` as a share of all clips; `max_seconds` of each clip that are heard."""

    retries: int = 2
    max_failures: float = 0.05
    max_seconds: float | None = None
    workers: int = 1


def is_current(row: Row, clip: SourceClip) -> bool:
    """Whether a logged row is of this very file and kind."""
    return row.get("kind") == clip.kind and row.get("bytes") == file_size(clip)


def file_size(clip: SourceClip) -> int:
    """Bytes of the clip's file, -1 where there is none."""
    try:
        return clip.path.stat().st_size
    except OSError:
        return -1


def caption_clips(
    clips: list[SourceClip], backend: Backend, log: ItemLog, limits: Limits, progress: bool = True
) -> None:
    """Caption the clips that `log` lacks, `limits.workers` at a time, and log each as soon as its reply is there.

    A row has `status` `done` (with `caption` and its parts) or `failed` (with `reason`). Raises `DataError` as soon as more clips
    than `limits.max_failures` allows have failed, and `BackendError` where no clip can be captioned any more; the replies
    that were still under way are logged before.
    """
    pending = (clip for clip in clips if clip.name not in log.rows)
    found = [log.rows[clip.name] for clip in clips if clip.name in log.rows]
    failed = sum(row["status"] == "failed" for row in found)
    tally = _Tally(len(clips), limits.max_failures, log, failed, len(found) - failed)
    bar = tqdm(total=len(clips), initial=len(found), desc="captions", unit=" clips", disable=not progress)
    running: set[Future[Row]] = set()
    with bar, ThreadPoolExecutor(limits.workers) as pool:
        try:
            tally.check()
            while True:
                running |= {
                    pool.submit(caption_clip, clip, backend, limits)
                    for clip in islice(pending, limits.workers - len(running))
                }
                if not running:
                    return
                finished, running = wait(running, return_when=FIRST_COMPLETED)
                tally.take(finished)
                bar.set_postfix_str(f"{tally.failed} failed")
                bar.update(len(finished))
        except BaseException:  # Ctrl-C too
            backend.stop()
            log.append([future.result() for future in wait(running).done if future.exception() is None])
            raise


@dataclass
class _Tally:
    """Logs what came, counts failures, and stops the run at too many."""

    clips: int
    max_failures: float
    log: ItemLog
    failed: int
    captioned: int

    def take(self, finished: set[Future[Row]]) -> None:
        """Log the rows of all that succeeded before the error of any is raised."""
        errors = [error for future in finished if (error := future.exception())]
        rows = [future.result() for future in finished if future.exception() is None]
        self.log.append(rows)
        self.failed += sum(row["status"] == "failed" for row in rows)
        self.captioned += sum(row["status"] == "done" for row in rows)
        for error in errors:
            raise error
        self.check()

    def check(self) -> None:
        """Raise `DataError` with the first reasons where too many failed."""
        hopeless = self.failed >= HOPELESS and not self.captioned and self.max_failures < 1
        if self.failed <= self.max_failures * self.clips and not hopeless:
            return
        reasons = [f"{row['id']}: {row['reason']}" for row in self.log.rows.values() if row["status"] == "failed"]
        limit = "and none was captioned" if hopeless else f"over the limit of {self.max_failures:.0%}"
        raise DataError(
            f"{self.failed} of {self.clips} clips failed, {limit} (--max_failures). What is done is kept in {self.log.path}; "
            "--retry_failed tries the failed ones again. The first:\n  " + "\n  ".join(reasons[:5])
        )


def caption_clip(clip: SourceClip, backend: Backend, limits: Limits) -> Row:
    """The row of one clip. Raises `BackendError`."""
    row: Row = {"id": clip.name, "kind": clip.kind, "bytes": file_size(clip)}
    used = {"requests": 0, "prompt_tokens": 0, "answer_tokens": 0}
    reply, reason = "", ""
    try:
        waveform, cut = _read(clip, backend.sampling_rate, limits.max_seconds)
        seconds = len(waveform) / backend.sampling_rate
        row |= {"seconds": round(seconds, 3), "cut": cut}
        asked = Turn("user", instruction(clip.kind, seconds))
        turns = [asked]
        for _ in range(1 + limits.retries):
            answer = backend.ask(waveform, turns)
            row["served"] = answer.model
            used["requests"] += 1
            used["prompt_tokens"] += answer.prompt_tokens or 0
            used["answer_tokens"] += answer.answer_tokens or 0
            try:
                found = parse(answer.text, clip.kind, seconds)
                return {**row, "status": "done", "caption": found.caption(), **found._asdict(), **used}
            except StructureError as error:
                reply = _encodable(answer.text[:KEPT_REPLY])
                reason = f"{error}{' (its limit of new tokens ended it, --max_new_tokens)' if answer.cut else ''}"
                turns = [asked, Turn("assistant", reply or "(nothing)"), Turn("user", repair(str(error)))]
        reason = f"no usable reply in {1 + limits.retries} attempts; of the last: {reason}"
    except (AudioError, ClipError) as error:
        reason = str(error)
    return {**row, "status": "failed", "reason": _encodable(reason), "reply": reply, **used}


def _read(clip: SourceClip, rate: int, max_seconds: float | None) -> tuple[NDArray[np.float32], bool]:
    """The waveform, and whether `max_seconds` cut it."""
    waveform = read_audio(clip.path, rate)
    size = len(waveform) if max_seconds is None else max(1, round(max_seconds * rate))
    return waveform[:size], size < len(waveform)


def _encodable(text: str) -> str:
    """`text` without the lone surrogates that a model's escapes or a file's name may hold, and UTF-8 may not."""
    return text.encode("utf-8", "replace").decode()
