"""The steps around encoding: prepare the folder, hash the files, merge the parts, report."""

import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from alm.data.example import DataError
from alm.data.tokens import read_description, unmerged_parts
from alm.data.tokens_format import (
    FAILURES,
    FORMAT,
    PARTS,
    SHARDS,
    STORE,
    VERSION,
    WORK,
    Clip,
    Failure,
    Shard,
    Source,
    StoreContract,
    content_key,
    is_temporary,
    read_failures,
    read_shard,
    read_sources,
    remove_temporary,
    write_atomic,
    write_failures,
    write_shard,
    write_sources,
)
from codec.audio import AudioError


class BuildReport(NamedTuple):
    """What a build left: files given, of them failed; contents newly encoded by all ranks; what the store now holds."""

    files: int
    failed: int
    encoded: int
    clips: int
    hours: float


@dataclass(frozen=True)
class Run:
    """What every step needs to know; `codec` is the codec's name for people."""

    folder: Path
    contract: StoreContract
    codec: str
    rank: int
    world_size: int
    workers: int
    flush_seconds: float
    progress: bool

    @property
    def work(self) -> Path:
        """What ranks tell each other, while the build lasts."""
        return self.folder / WORK

    def bar(self, what: str, total: int, unit: str) -> "tqdm[Any]":
        """Progress of rank 0's share."""
        who = f" (rank 0 of {self.world_size})" if self.world_size > 1 else ""
        hidden = not self.progress or self.rank > 0
        return tqdm(desc=what + who, total=total, unit=unit, unit_scale=True, disable=hidden)


@contextmanager
def locked(run: Run) -> Iterator[None]:
    """Make the folder, if it is new, and keep other builds out of it: rank 0 locks it.

    The lock is on the folder itself: no lock file to leave behind, and it is gone when the process dies.
    Raises `DataError` where the folder is a file, holds something else than a store, or another process is building it.
    """
    folder = run.folder
    if folder.is_file():
        raise DataError(f"{folder}: a file; give a folder for the token store")
    is_new = not (folder / STORE).is_file()
    if is_new and run.rank == 0 and folder.is_dir() and not all(map(is_temporary, folder.iterdir())):
        raise DataError(f"{folder}: holds other files and no token store; give a new folder, or one with a token store")
    folder.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder, os.O_RDONLY)
    try:
        if run.rank == 0:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise DataError(
            f"{folder}: another process is building this store (perhaps one whose launcher was killed); wait for it, or end it"
        ) from None
    finally:
        os.close(lock)


def prepare(run: Run) -> None:
    """Check that the store is of this codec (`ContractError`); rank 0 makes a new one and cleans up after killed runs."""
    folder = run.folder
    if (folder / STORE).is_file():
        run.contract.require(StoreContract(**read_description(folder)["contract"]), f"token store {folder}")
    if run.rank > 0:
        return
    remove_temporary(folder)
    if not (folder / STORE).is_file():
        _commit(run, [], "", {"clips": 0, "seconds": 0.0, "tokens": 0, "made_with": {}})
    for name in (SHARDS, PARTS, WORK):
        (folder / name).mkdir(exist_ok=True)
        remove_temporary(folder / name)
    for path in [*run.work.glob("failures-*"), *run.work.glob("assigned-*")]:
        path.unlink()  # of an earlier run, perhaps with another number of ranks


def existing(folder: Path) -> list[Shard]:
    """Committed shards and parts. A listed shard that is missing is no error here: its clips are encoded again."""
    listed = [folder / SHARDS / name for name in read_description(folder)["shards"]]
    return [read_shard(path) for path in [*filter(Path.is_file, listed), *unmerged_parts(folder)]]


def hash_files(run: Run, given: Mapping[str, str]) -> list[Failure]:
    """Hash this rank's share of the files, except those known by path, size and time; leaves the result in `work/`."""
    known = {row[:3]: row.key for row in [*_committed_sources(run.folder), *_read_tables(run.work, "sources-*.arrow")]}
    items = list(given.items())[run.rank :: run.world_size]
    found: list[Source] = []
    fresh: list[Source] = []
    failures: list[Failure] = []

    def look(item: tuple[str, str]) -> tuple[Source, bool] | Failure:
        relative, path = item
        try:
            stat = Path(path).stat()
            key = known.get((relative, stat.st_size, stat.st_mtime_ns))
            return Source(relative, stat.st_size, stat.st_mtime_ns, key or content_key(path)), key is None
        except OSError as error:
            return Failure(relative, "", f"{path}: {error.strerror}")
        except AudioError as error:
            return Failure(relative, "", str(error))

    flushed = time.monotonic()
    with ThreadPoolExecutor(max(2, run.workers)) as pool, run.bar("hash", len(items), " files") as bar:
        for start in range(0, len(items), 256):
            for result in pool.map(look, items[start : start + 256]):
                bar.update()
                if isinstance(result, Failure):
                    failures.append(result)
                    continue
                found.append(result[0])
                fresh += [result[0]] if result[1] else []
            if fresh and time.monotonic() - flushed >= run.flush_seconds:
                write_sources(run.work, fresh)
                fresh, flushed = [], time.monotonic()
    write_sources(run.work, found, f"assigned-{run.rank}-")
    return failures


def read_assigned(run: Run) -> list[Source]:
    """All files given to this run that could be hashed, by all ranks, in order of path."""
    return sorted(_read_tables(run.work, "assigned-*.arrow"))


def merge(run: Run, given: Mapping[str, str], assigned: Sequence[Source], shard_codes: int) -> None:
    """Bring parts and shards into shards in order of key, commit, and remove what is no longer needed."""
    folder, description = run.folder, read_description(run.folder)
    shards = existing(folder)
    rows: dict[str, tuple[Shard, int]] = {}
    for shard in shards:
        for row, key in enumerate(shard.keys):
            rows.setdefault(key, (shard, row))
    names = description["shards"]
    if [shard.path.name for shard in shards] != names:
        names = _write_shards(run, rows, shard_codes)
    others = [row for row in _committed_sources(folder) if row.path not in given]
    sources = sorted(row for row in [*others, *assigned] if row.key in rows)
    new = [failure for path in run.work.glob("failures-*.jsonl") for failure in read_failures(path)]
    failures = [failure for failure in read_failures(folder / FAILURES) if failure.path not in given] + new
    write_failures(folder / FAILURES, failures)
    totals = {
        "clips": len(rows),
        "seconds": sum(float(rows[key][0].seconds[rows[key][1]]) for key in sorted(rows)),
        "tokens": sum(int(rows[key][0].num_frames[rows[key][1]]) for key in rows) * run.contract.num_codebooks,
        "made_with": description["made_with"] if names == description["shards"] else _versions(),
    }
    kept = write_sources(folder, sources)
    _commit(run, names, kept, totals)
    for path in [*(folder / SHARDS).iterdir(), *folder.glob("sources-*.arrow")]:
        if path.name not in (*names, kept):
            path.unlink()
    shutil.rmtree(folder / PARTS)
    shutil.rmtree(run.work)


def report(run: Run, given: Mapping[str, str], stored_before: int) -> BuildReport:
    """Read back what the finished build left."""
    description = read_description(run.folder)
    failed = sum(failure.path in given for failure in read_failures(run.folder / FAILURES))
    clips = description["clips"]
    return BuildReport(len(given), failed, clips - stored_before, clips, description["seconds"] / 3600)


def _write_shards(run: Run, rows: Mapping[str, tuple[Shard, int]], shard_codes: int) -> list[str]:
    names: list[str] = []
    for clips in _cut((shard.clip(row) for _, (shard, row) in sorted(rows.items())), shard_codes):
        names.append(write_shard(run.folder / SHARDS, clips, run.contract, f"{len(names):05d}-"))
    return names


def _cut(clips: Iterator[Clip], shard_codes: int) -> Iterator[list[Clip]]:
    shard: list[Clip] = []
    held = 0
    for clip in clips:
        if shard and held + len(clip.codes) > shard_codes:
            yield shard
            shard, held = [], 0
        shard.append(clip)
        held += len(clip.codes)
    if shard:
        yield shard


def _commit(run: Run, shards: Sequence[str], sources: str, totals: Mapping[str, Any]) -> None:
    description = {
        "format": FORMAT,
        "version": VERSION,
        "codec": run.codec,
        "contract": asdict(run.contract),
        **totals,
        "sources": sources,
        "shards": list(shards),
    }
    write_atomic(run.folder / STORE, (json.dumps(description, indent=2) + "\n").encode())


def _committed_sources(folder: Path) -> list[Source]:
    name = read_description(folder)["sources"]
    return read_sources(folder / name) if name else []


def _read_tables(folder: Path, pattern: str) -> list[Source]:
    return [row for path in sorted(folder.glob(pattern)) for row in read_sources(path)]


def _versions() -> dict[str, str]:
    return {name: version(name) for name in ("torch", "transformers", "soundfile", "soxr", "numpy")}
