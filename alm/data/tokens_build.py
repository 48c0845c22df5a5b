"""Building a token store: every content encoded once, on all ranks, whatever kills the run in between.

Four steps, with a barrier after each: prepare the folder; hash the clips (rank r takes every world_size-th group: a file, a row group
of Parquet, an archive); encode (a file's content on the rank that its key chooses, a row's or member's on the rank that reads its
group, into `parts/`); merge (rank 0, into shards in order of key). Ranks share through files, each written whole or not at all, and
`store.json` is the only commit point: a run that is started again keeps every part and every hash that was written. The finished
folder depends on the audio and the codec alone, byte for byte.
"""

import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from alm.data.audio_groups import AudioFile, AudioGroup
from alm.data.example import DataError
from alm.data.tokens import TokenStore
from alm.data.tokens_files import read_description, read_failures, write_failures
from alm.data.tokens_format import FAILURES, PARTS, Clip, Failure, Source, StoreContract
from alm.data.tokens_merge import (
    SHARD_CODES,
    committed_sources,
    existing,
    merge,
    moved_failures,
    moved_sources,
    versions,
)
from alm.data.tokens_read import Job, batches, in_background, load_all, windows
from alm.data.tokens_steps import Given, Hashing, Run, all_given, locked, prepare, read_assigned
from alm.data.tokens_tables import ClipIndex, write_shard
from alm.vocabulary import ContractError
from codec.base import Codec, Codes, Waveform

_WINDOW_FRAMES = 1 << 16  # audio that is read ahead and sorted by length: 22 minutes at 50 Hz, 126 MB at 24 kHz


class BuildReport(NamedTuple):
    """What a build left: clips given, of them failed; contents newly encoded by all ranks; what the store now holds."""

    files: int
    failed: int
    encoded: int
    clips: int
    hours: float


def build_token_store(
    audio: Iterable[AudioGroup | str | Path],
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
    shard_codes: int = SHARD_CODES,
    progress: bool = True,
) -> BuildReport:
    """Encode audio (files, or groups of clips: `alm.data.audio_groups`) into the store `output`, adding to what it holds.

    All ranks call this with the same arguments. `barrier` waits for all ranks (accelerate's `wait_for_everyone`). `frames_per_batch`
    bounds a padded batch, longest clip × clips. What was encoded is written every `flush_seconds`. A clip that cannot be read, or that
    the codec refuses with a `ValueError`, is listed in `failures.jsonl` and tried again by the next run; when more than the share
    `max_failures` of the clips fails, `DataError` is raised, and everything encoded until then is kept.

    Raises `ContractError`, with both fingerprints, where the store was made with another codec, and `DataError` where `audio` is
    empty, `output` is something else than a store, or another process is building it.
    """
    folder = Path(output)
    groups = [AudioFile(str(item)) if isinstance(item, str | Path) else item for item in audio]
    groups = sorted(
        {(g.path, g.labels[0]): g for g in groups}.values(), key=lambda g: (g.path, len(g.labels[0]), g.labels[0])
    )
    if not groups:
        raise DataError("no audio files to encode")
    run = Run(folder, StoreContract.of(codec), codec_name, rank, world_size, workers, flush_seconds, progress)
    given = all_given(groups, folder)
    with locked(run):
        prepare(run)
        barrier()
        before = existing(folder)
        failures = Hashing(run, groups).hash()
        barrier()
        assigned = read_assigned(run)
        encoding = _Encoding(run, codec, groups, failures, max_failures, len(given))
        encoding.encode([source for source in assigned if before.find(source.key) is None], given, frames_per_batch)
        write_failures(run.work / f"failures-{rank}.jsonl", failures)
        barrier()
        if rank == 0:
            others = [row for row in committed_sources(folder) if row.path not in given]
            failed = [row for row in read_failures(folder / FAILURES) if row.path not in given]
            failed += [row for path in run.work.glob("failures-*.jsonl") for row in read_failures(path)]
            merge(folder, existing(folder), [*others, *assigned], failed, [versions()], shard_codes)
        barrier()
    description = read_description(folder)
    failed_now = sum(failure.path in given for failure in read_failures(folder / FAILURES))
    clips = description["clips"]
    if failed_now > max_failures * len(given):
        raise too_many(run, failed_now, len(given), max_failures)
    return BuildReport(len(given), failed_now, clips - len(before), clips, description["seconds"] / 3600)


def merge_stores(stores: Sequence[str | Path], output: str | Path, shard_codes: int = SHARD_CODES) -> int:
    """Bring finished stores of one codec together in `output`, a new folder or a store; returns its clips.

    The result is, byte for byte, what tokenising all their audio into `output` gives; a clip of several is there once. Raises
    `ContractError` where the codecs differ, and `DataError` where one is not a finished, sound store.
    """
    folder = Path(output)
    opened = [TokenStore.open(path) for path in stores]
    for store in opened:
        if (store.folder / PARTS).exists():
            raise DataError(
                f"{store.folder}: its build is not finished; run recipes/tokenize_corpus.py with its arguments"
            )
        opened[0].store_contract.require(store.store_contract, f"token store {store.folder}")
    run = Run(folder, opened[0].store_contract, opened[0].description["codec"], 0, 1, 1, 0.0, False)
    with locked(run):
        prepare(run)
        own = existing(folder)
        merge(
            folder,
            ClipIndex([*own.shards, *(shard for store in opened for shard in store.shards)]),
            [*committed_sources(folder), *(row for store in opened for row in moved_sources(store.folder, folder))],
            [
                *read_failures(folder / FAILURES),
                *(row for store in opened for row in moved_failures(store.folder, folder)),
            ],
            [store.description["made_with"] for store in opened],
            shard_codes,
        )
    return int(read_description(folder)["clips"])


def too_many(run: Run, failed: int, files: int, max_failures: float) -> DataError:
    """The error that says how many clips failed, where they are listed, and that nothing was lost."""
    return DataError(
        f"{failed} of {files} files could not be encoded, more than the {max_failures:.1%} allowed; they are listed with their reasons in "
        f"{run.folder / FAILURES}. What was encoded is kept: mend or leave out those files, or raise --max_failures, and run again"
    )


class _Encoding:
    """One rank's encoding: contents in, parts and failures out."""

    def __init__(
        self,
        run: Run,
        codec: Codec,
        groups: Sequence[AudioGroup],
        failures: list[Failure],
        max_failures: float,
        total: int,
    ) -> None:
        self.run, self.codec, self.groups, self.failures = run, codec, groups, failures
        self.max_failures, self.total = max_failures, total
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
        if len(self.failures) > self.max_failures * self.total:
            self._flush()
            write_failures(self.run.folder / FAILURES, self.failures)
            raise too_many(self.run, len(self.failures), self.total, self.max_failures)

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
