"""The steps before encoding: lock and prepare the folder, find out which content each clip has."""

import fcntl
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from alm.data.audio_groups import Audio, AudioGroup
from alm.data.example import DataError
from alm.data.tokens_files import is_temporary, read_description, remove_temporary
from alm.data.tokens_format import PARTS, SHARDS, STORE, WORK, Failure, Source, StoreContract, content_key, item_name
from alm.data.tokens_merge import commit, committed_sources
from alm.data.tokens_read import bare_reason, read
from alm.data.tokens_tables import read_sources, write_sources
from codec.audio import AudioError


class Given(NamedTuple):
    """One clip that a run was given: the number of its group, and its label there."""

    group: int
    label: str


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
        commit(folder, run.contract, run.codec)
    for name in (SHARDS, PARTS, WORK):
        (folder / name).mkdir(exist_ok=True)
        remove_temporary(folder / name)
    for path in [*run.work.glob("failures-*"), *run.work.glob("assigned-*")]:
        path.unlink()  # of an earlier run, perhaps with another number of ranks


class Hashing:
    """One rank's share of the groups: the content key of each clip, from the tables of earlier runs where the file is unchanged."""

    def __init__(self, run: Run, groups: Sequence[AudioGroup]) -> None:
        self.run, self.groups = run, groups
        earlier = [committed_sources(run.folder), *_tables(run.work, "sources-*.arrow")]
        self.known = {(row.path, row.mtime_ns): row for table in earlier for row in table}
        self.found: list[Source] = []
        self.fresh: list[Source] = []
        self.failures: list[Failure] = []

    def hash(self) -> list[Failure]:
        """Leave the result in `work/`; returns the clips that cannot be read."""
        groups = self.groups[self.run.rank :: self.run.world_size]
        flushed = time.monotonic()
        total = sum(len(group.labels) for group in groups)
        with ThreadPoolExecutor(max(2, self.run.workers)) as pool, self.run.bar("hash", total, " clips") as bar:
            for start in range(0, len(groups), 256):
                for rows in pool.map(self._look, groups[start : start + 256]):
                    bar.update(len(rows))
                    self._take(rows)
                if self.fresh and time.monotonic() - flushed >= self.run.flush_seconds:
                    write_sources(self.run.work, self.fresh)
                    self.fresh, flushed = [], time.monotonic()
        write_sources(self.run.work, self.found, f"assigned-{self.run.rank}-")
        return self.failures

    def _take(self, rows: Sequence[Source | Failure]) -> None:
        for row in rows:
            if isinstance(row, Failure):
                self.failures.append(row)
                continue
            self.found.append(row)
            if (row.path, row.mtime_ns) not in self.known:
                self.fresh.append(row)

    def _look(self, group: AudioGroup) -> list[Source | Failure]:
        names = {label: item_name(group.path, self.run.folder, label) for label in group.labels}
        try:
            size, mtime = group.stamp()
        except OSError as error:
            return [Failure(name, "", str(error.strerror)) for name in names.values()]
        rows: dict[str, Source | Failure] = {}
        for label, name in names.items():
            row = self.known.get((name, mtime))
            if row is not None and size in (None, row.size):
                rows[label] = row
        unknown = [label for label in names if label not in rows]
        for label, audio in group.read(unknown) if unknown else ():
            rows[label] = _hashed(names[label], size, mtime, audio, group.path + label)
        return list(rows.values())


def _hashed(name: str, size: int | None, mtime: int, audio: Audio, where: str) -> Source | Failure:
    try:
        if isinstance(audio, Path) and size is not None:
            return Source(name, size, mtime, content_key(audio))
        data = read(audio)
        return Source(name, len(data), mtime, content_key(data))
    except AudioError as error:
        return Failure(name, "", bare_reason(error, audio, where))


def read_assigned(run: Run) -> list[Source]:
    """All clips given to this run that could be hashed, by all ranks, in order of name."""
    return sorted(row for table in _tables(run.work, "assigned-*.arrow") for row in table)


def all_given(groups: Sequence[AudioGroup], folder: Path) -> Mapping[str, Given]:
    """Where each clip of a run is, by its name in the store."""
    return {item_name(g.path, folder, label): Given(i, label) for i, g in enumerate(groups) for label in g.labels}


def _tables(folder: Path, pattern: str) -> Iterator[Any]:
    return map(read_sources, sorted(folder.glob(pattern)))
