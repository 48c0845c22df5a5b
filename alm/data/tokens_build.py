"""Building a token store: every content encoded once, on all ranks, whatever kills the run in between.

Four steps, with a barrier after each: prepare the folder; hash the files (rank r takes every world_size-th); encode (rank r
takes the contents whose key modulo world_size is r, into `parts/`); merge (rank 0, into shards in order of key). Ranks share
through files, each written whole or not at all, and `store.json` is the only commit point: a run that is started again keeps
every part and every hash that was written. The finished folder depends on the audio and the codec alone, byte for byte.
"""

import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from alm.data.example import DataError
from alm.data.tokens_format import (
    PARTS,
    Clip,
    Failure,
    Source,
    StoreContract,
    relative_path,
    write_failures,
    write_shard,
)
from alm.data.tokens_read import Job, batches, in_background, load_all, windows
from alm.data.tokens_steps import BuildReport, Run, existing, hash_files, locked, merge, prepare, read_assigned, report
from alm.vocabulary import ContractError
from codec.base import Codec, Codes, Waveform

_WINDOW = 4  # batches' worth of audio that is read ahead and sorted by length
_SHARD_CODES = 1 << 25  # 64 MiB of uint16


def build_token_store(
    paths: Iterable[str | Path],
    codec: Codec,
    output: str | Path,
    *,
    codec_name: str = "",
    rank: int = 0,
    world_size: int = 1,
    barrier: Callable[[], object] = lambda: None,
    frames_per_batch: int = 16_384,
    workers: int = 2,
    max_failures: float = 0.05,
    flush_seconds: float = 30.0,
    shard_codes: int = _SHARD_CODES,
    progress: bool = True,
) -> BuildReport:
    """Encode audio files into the store `output`, adding to what it holds; all ranks call this with the same arguments.

    `barrier` waits for all ranks (accelerate's `wait_for_everyone`). `frames_per_batch` bounds a padded batch, longest clip ×
    clips. What was encoded is written every `flush_seconds`. A file that cannot be read, or that the codec refuses with a
    `ValueError`, is listed in `failures.jsonl` and tried again by the next run; when more than the share `max_failures` of the
    files fails, `DataError` is raised, and everything encoded until then is kept.

    Raises `ContractError`, with both fingerprints, where the store was made with another codec, and `DataError` where `paths` is
    empty, `output` is something else than a store, or another process is building it.
    """
    folder = Path(output)
    given = dict(sorted((relative_path(path, folder), str(path)) for path in paths))
    if not given:
        raise DataError("no audio files to encode")
    run = Run(folder, StoreContract.of(codec), codec_name, rank, world_size, workers, flush_seconds, progress)
    with locked(run):
        prepare(run)
        barrier()
        stored = {key for shard in existing(folder) for key in shard.keys}
        failures = hash_files(run, given)
        barrier()
        assigned = read_assigned(run)
        _Encoding(run, codec, given, assigned, failures, max_failures).encode(stored, frames_per_batch)
        write_failures(run.work / f"failures-{rank}.jsonl", failures)
        barrier()
        if rank == 0:
            merge(run, given, assigned, shard_codes)
        barrier()
    result = report(run, given, len(stored))
    if result.failed > max_failures * result.files:
        raise too_many(run, result.failed, result.files, max_failures)
    return result


def too_many(run: Run, failed: int, files: int, max_failures: float) -> DataError:
    """The error that says how many files failed, where they are listed, and that nothing was lost."""
    return DataError(
        f"{failed} of {files} files could not be encoded, more than the {max_failures:.1%} allowed; they are listed with their reasons in "
        f"{run.folder / 'failures.jsonl'}. What was encoded is kept: mend or leave out those files, or raise --max_failures, and run again"
    )


class _Encoding:
    """One rank's encoding: contents in, parts and failures out."""

    def __init__(
        self,
        run: Run,
        codec: Codec,
        given: dict[str, str],
        assigned: Sequence[Source],
        failures: list[Failure],
        max_failures: float,
    ) -> None:
        self.run, self.codec, self.given, self.failures, self.max_failures = run, codec, given, failures, max_failures
        self.sources: dict[str, list[Source]] = defaultdict(list)
        for source in sorted(assigned):
            if int(source.key, 16) % run.world_size == run.rank:
                self.sources[source.key].append(source)
        self.clips: list[Clip] = []
        self.flushed = self.started = time.monotonic()
        self.hours = 0.0

    def encode(self, stored: set[str], frames_per_batch: int) -> None:
        """Encode this rank's contents that are not `stored`, in batches of similar length, while the next ones are read."""
        jobs = [
            Job(key, self.given[sources[0].path], sources[0].size)
            for key, sources in self.sources.items()
            if key not in stored
        ]
        self._stop_if_too_many()
        rate, frame_rate = self.run.contract.sampling_rate, self.run.contract.frame_rate
        loaded = load_all(jobs, rate, self.run.workers)
        window_samples = int(_WINDOW * frames_per_batch * rate / frame_rate)
        with self.run.bar("encode", sum(job.size for job in jobs), "B") as bar:
            for window in in_background(windows(loaded, window_samples)):
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

    def _encode_batch(self, clips: Sequence[tuple[Job, Waveform]]) -> None:
        results = encode_each(self.codec, [waveform for _, waveform in clips])
        for (job, waveform), codes in zip(clips, results, strict=True):
            if isinstance(codes, str):
                self._fail(job.key, f"{job.path}: the codec refuses it: {codes}")
                continue
            flat = self.run.contract.flatten(codes)
            if not len(flat):
                self._fail(job.key, f"{job.path}: the codec gave no frames for its {len(waveform)} samples")
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
        first = self.given[self.sources[key][0].path]
        for source in self.sources[key]:
            copy = "" if self.given[source.path] == first else f"same content as {first}: "
            self.failures.append(Failure(source.path, key, copy + reason))

    def _stop_if_too_many(self) -> None:
        """Stop as soon as the limit is passed for certain, not after hours."""
        if len(self.failures) > self.max_failures * len(self.given):
            self._flush()
            write_failures(self.run.folder / "failures.jsonl", self.failures)
            raise too_many(self.run, len(self.failures), len(self.given), self.max_failures)

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
