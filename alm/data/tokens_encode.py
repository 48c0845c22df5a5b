"""One rank's encoding of a token store: contents in, parts and failures out."""

import math
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from alm.data.audio_groups import AudioGroup
from alm.data.example import DataError
from alm.data.tokens_files import write_failures
from alm.data.tokens_format import FAILURES, PARTS, Clip, Failure, Source
from alm.data.tokens_read import Job, batches, in_background, load_all, windows
from alm.data.tokens_steps import Given, Run
from alm.data.tokens_tables import write_shard
from alm.vocabulary import ContractError
from codec.base import Codec, Codes, Waveform

_WINDOW_FRAMES = 1 << 16  # audio that is read ahead and sorted by length: 22 minutes at 50 Hz, 126 MB at 24 kHz


def too_many(run: Run, failed: int, files: int, max_missing: float) -> DataError:
    """The error that says how many clips failed, where they are listed, and that nothing was lost."""
    return DataError(
        f"{failed} of {files} files could not be encoded, more than the {max_missing:.1%} allowed; they are listed with their reasons in "
        f"{run.folder / FAILURES}. What was encoded is kept: mend or leave out those files, or raise --max_missing, and run again"
    )


class Encoding:
    """One rank's encoding: contents in, parts and failures out."""

    def __init__(
        self,
        run: Run,
        codec: Codec,
        groups: Sequence[AudioGroup],
        failures: list[Failure],
        max_missing: float,
        total: int,
    ) -> None:
        self.run, self.codec, self.groups, self.failures = run, codec, groups, failures
        self.max_missing, self.total = max_missing, total
        self.names: dict[str, list[str]] = defaultdict(list)
        self.clips: list[Clip] = []
        self.flushed = self.started = time.monotonic()
        self.hours = 0.0

    def encode(self, assigned: Sequence[Source], given: Mapping[str, Given], frames_per_batch: int) -> None:
        """Encode this rank's contents among `assigned`, in batches of similar length, while the next ones are read."""
        contents: dict[str, Source] = {}
        for source in assigned:
            self.names[source.key].append(source.path)
            contents.setdefault(source.key, source)
        mine: dict[int, dict[str, Source]] = defaultdict(dict)
        for source in contents.values():
            group, label = given[source.path]
            # files by key, as neighbours in a folder are alike; rows and members where their group is read
            if (group if label else int(source.key, 16)) % self.run.world_size == self.run.rank:
                mine[group][label] = source
        self._stop_if_too_many()
        rate, frame_rate = self.run.contract.sampling_rate, self.run.contract.frame_rate
        loaded = load_all(self._jobs(mine), rate, self.run.workers)
        window_frames = max(4 * frames_per_batch, min(64 * frames_per_batch, _WINDOW_FRAMES))
        total = sum(source.size for sources in mine.values() for source in sources.values())
        with self.run.bar("encode", total, "B") as bar:
            for window in in_background(windows(loaded, int(window_frames * rate / frame_rate))):
                for item in window:
                    if item.waveform is None:
                        self._fail(item.job.key, item.reason)
                        bar.update(item.job.size)
                clips = [(item.job, item.waveform) for item in window if item.waveform is not None]
                lengths = [math.ceil(len(waveform) / rate * frame_rate) for _, waveform in clips]
                for batch in batches(lengths, frames_per_batch):
                    self._encode_batch([clips[index] for index in batch])
                    bar.set_postfix_str(
                        f"{self.hours:.2f} h of audio, {self._hours_per_second():.4f} h/s", refresh=False
                    )
                    bar.update(sum(clips[index][0].size for index in batch))
                self._stop_if_too_many()
        self._flush()

    def _jobs(self, mine: dict[int, dict[str, Source]]) -> Iterator[Job]:
        for number in sorted(mine):
            group, sources = self.groups[number], mine[number]
            for label, audio in group.read(sources):
                yield Job(sources[label].key, group.path + label, sources[label].size, audio)

    def _encode_batch(self, clips: Sequence[tuple[Job, Waveform]]) -> None:
        results = encode_each(self.codec, [waveform for _, waveform in clips])
        for (job, waveform), codes in zip(clips, results, strict=True):
            if isinstance(codes, str):
                self._fail(job.key, f"the codec refuses it: {codes}")
                continue
            flat = self.run.contract.flatten(codes)
            if not len(flat):
                self._fail(job.key, f"the codec gave no frames for its {len(waveform)} samples")
                continue
            seconds = len(waveform) / self.run.contract.sampling_rate
            self.clips.append(Clip(job.key, flat, codes.shape[1], seconds))
            self.hours += seconds / 3600
        if time.monotonic() - self.flushed >= self.run.flush_seconds:
            self._flush()

    def _flush(self) -> None:
        if self.clips:
            write_shard(self.run.folder / PARTS, self.clips, self.run.contract)
        self.clips, self.flushed = [], time.monotonic()

    def _fail(self, key: str, reason: str) -> None:
        self.failures += [Failure(name, key, reason) for name in self.names[key]]

    def _stop_if_too_many(self) -> None:
        """Stop as soon as the limit is passed for certain, not after hours."""
        if len(self.failures) > self.max_missing * self.total:
            self._flush()
            write_failures(self.run.folder / FAILURES, self.failures)
            raise too_many(self.run, len(self.failures), self.total, self.max_missing)

    def _hours_per_second(self) -> float:
        return self.hours / max(time.monotonic() - self.started, 1e-6)


def encode_each(codec: Codec, waveforms: Sequence[Waveform]) -> list[Codes | str]:
    """Codes of each waveform; where the codec refuses one (`ValueError`), its reason instead, and the others alone."""
    try:
        codes = codec.encode(waveforms)
    except ValueError as error:
        if len(waveforms) == 1:
            return [str(error)]
        return [result for waveform in waveforms for result in encode_each(codec, [waveform])]
    if len(codes) != len(waveforms):
        raise ContractError(f"the codec gave {len(codes)} results for {len(waveforms)} clips")
    return list(codes)
