"""Building a token store: every content encoded once, on all ranks, whatever kills the run in between.

Four steps, with a barrier after each: prepare the folder; hash the clips (rank r takes every world_size-th group: a file, a row group
of Parquet, an archive); encode (a file's content on the rank that its key chooses, a row's or member's on the rank that reads its
group, into `parts/`); merge (rank 0, into shards in order of key). Ranks share through files, each written whole or not at all, and
`store.json` is the only commit point: a run that is started again keeps every part and every hash that was written. The finished
folder depends on the audio and the codec alone, byte for byte.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from alm.data.audio_groups import AudioFile, AudioGroup
from alm.data.example import DataError
from alm.data.tokens import TokenStore
from alm.data.tokens_encode import Encoding, too_many
from alm.data.tokens_files import read_description, read_failures, write_failures
from alm.data.tokens_format import FAILURES, PARTS, StoreContract
from alm.data.tokens_merge import (
    SHARD_CODES,
    committed_sources,
    existing,
    merge,
    moved_failures,
    moved_sources,
    versions,
)
from alm.data.tokens_steps import Hashing, Run, all_given, locked, prepare, read_assigned
from alm.data.tokens_tables import ClipIndex
from codec.base import Codec


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
    max_missing: float = 0.05,
    flush_seconds: float = 30.0,
    shard_codes: int = SHARD_CODES,
    progress: bool = True,
) -> BuildReport:
    """Encode audio (files, or groups of clips: `alm.data.audio_groups`) into the store `output`, adding to what it holds.

    All ranks call this with the same arguments. `barrier` waits for all ranks (accelerate's `wait_for_everyone`). `frames_per_batch`
    bounds a padded batch, longest clip × clips. What was encoded is written every `flush_seconds`. A clip that cannot be read, or that
    the codec refuses with a `ValueError`, is listed in `failures.jsonl` and tried again by the next run; when more than the share
    `max_missing` of the clips fails, `DataError` is raised, and everything encoded until then is kept.

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
        encoding = Encoding(run, codec, groups, failures, max_missing, len(given))
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
    if failed_now > max_missing * len(given):
        raise too_many(run, failed_now, len(given), max_missing)
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
