"""Audio for tokenising: clips read and resampled in threads while the codec works, then batched by length."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, TypeVar

from alm.data.audio_groups import Audio
from alm.data.tokens_format import content_key
from codec.audio import AudioError, read_audio, read_bytes
from codec.base import Waveform

Item = TypeVar("Item")
_READ_AHEAD_BYTES = 64 << 20  # of files, as stored: a few minutes to an hour of audio
_READ_AHEAD_FILES = 256


class Job(NamedTuple):
    """One content to encode: its key, what messages call it, its size in bytes, and where it is."""

    key: str
    name: str
    size: int
    audio: Audio


class Loaded(NamedTuple):
    """A job with its waveform `(S,)` at the codec's rate, or with the reason why there is none."""

    job: Job
    waveform: Waveform | None
    reason: str = ""


def load(job: Job, sampling_rate: int) -> Loaded:
    """Read one clip; whatever is wrong with it becomes the reason, without the clip's name."""
    try:
        data = read(job.audio)
        if content_key(data) != job.key:
            raise AudioError("changed while the store was being built; run the command again")
        waveform = read_audio(data, sampling_rate, name=job.name)
        return Loaded(Job(job.key, job.name, job.size, Path()), waveform)  # the bytes are done with
    except AudioError as error:
        reason = bare_reason(error, job.audio, job.name)
    except MemoryError:
        reason = f"{job.size} bytes, too long for this machine's memory"
    return Loaded(job, None, reason)


def read(audio: Audio) -> bytes:
    """Bytes of a clip. Raises `AudioError` where there are none."""
    if isinstance(audio, AudioError):
        raise audio
    return audio if isinstance(audio, bytes) else read_bytes(audio)


def bare_reason(error: AudioError, audio: Audio, name: str) -> str:
    """What is wrong, without where: the list of failures has the name beside it, and paths are the machine's."""
    text = str(error)
    for prefix in (f"{name}: ", f"{audio}: " if isinstance(audio, Path) else ""):
        text = text.removeprefix(prefix)
    return text


def load_all(jobs: Iterable[Job], sampling_rate: int, workers: int) -> Iterator[Loaded]:
    """Load in threads, in order, with a bounded number of files in memory (decoding and resampling leave Python's lock)."""
    pool = ThreadPoolExecutor(workers, thread_name_prefix="read-audio")
    waiting: deque[tuple[int, Future[Loaded]]] = deque()
    held = 0
    try:
        for job in jobs:
            waiting.append((job.size, pool.submit(load, job, sampling_rate)))
            held += job.size
            while held > _READ_AHEAD_BYTES or len(waiting) > _READ_AHEAD_FILES:
                size, future = waiting.popleft()
                held -= size
                yield future.result()
        while waiting:
            yield waiting.popleft()[1].result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def windows(loaded: Iterable[Loaded], samples: int) -> Iterator[list[Loaded]]:
    """Group what was loaded into windows of about so many samples; batches are cut inside a window."""
    window: list[Loaded] = []
    held = 0
    for item in loaded:
        window.append(item)
        held += 0 if item.waveform is None else len(item.waveform)
        if held >= samples:
            yield window
            window, held = [], 0
    if window:
        yield window


def batches(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Indices of clips of so many frames, in batches of similar length.

    A batch's padded size, its longest length × its clips, is at most `budget`; a longer clip goes alone. Every index once.
    """
    result: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        # longest first: the batch's first clip decides its padded length
        if result and (len(result[-1]) + 1) * lengths[result[-1][0]] <= budget:
            result[-1].append(index)
        else:
            result.append([index])
    return result


def in_background(items: Iterator[Item]) -> Iterator[Item]:
    """Draw from an iterator in a thread, one item in advance; its exceptions are raised here."""
    with ThreadPoolExecutor(1, thread_name_prefix="read-ahead") as pool:
        following = pool.submit(next, items, None)
        while (item := following.result()) is not None:
            following = pool.submit(next, items, None)
            yield item
