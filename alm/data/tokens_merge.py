"""Merging: the parts of a build, or whole stores, into shards in order of key; the commit; the clean-up."""

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from alm.data.tokens_files import read_description, read_failures, unmerged_parts, write_atomic, write_failures
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
    Source,
    StoreContract,
)
from alm.data.tokens_tables import (
    ClipIndex,
    SourceTable,
    read_shard,
    read_sources,
    write_shard,
    write_sources,
)

SHARD_CODES = 1 << 25  # 64 MiB of uint16
_PACKAGES = ("torch", "transformers", "soundfile", "soxr", "numpy")


def existing(folder: Path) -> ClipIndex:
    """Committed shards and parts. A listed shard that is missing is no error here: its clips are encoded again."""
    listed = [folder / SHARDS / name for name in read_description(folder)["shards"]]
    return ClipIndex([read_shard(path) for path in [*filter(Path.is_file, listed), *unmerged_parts(folder)]])


def committed_sources(folder: Path) -> SourceTable:
    """The sources table that counts."""
    name = read_description(folder)["sources"]
    return read_sources(folder / name) if name else SourceTable()


def merge(
    folder: Path,
    index: ClipIndex,
    sources: Iterable[Source],
    failures: Iterable[Failure],
    made_with: Sequence[dict[str, str]] = (),
    shard_codes: int = SHARD_CODES,
) -> None:
    """Make `folder` the store of all clips of `index`, commit, and remove what no longer counts.

    Of `sources` those whose content is there are kept. `made_with`: the versions that made clips which the store did not have.
    """
    description = read_description(folder)
    contract = StoreContract(**description["contract"])
    names = description["shards"]
    if [shard.path for shard in index.shards] != [folder / SHARDS / name for name in names]:
        names = _write_shards(folder, index, contract, shard_codes)
    merged = ClipIndex([read_shard(folder / SHARDS / name) for name in names])
    # one row a name: of a file that was read twice its last state
    named = {row.path: row for row in sorted(sources, key=lambda row: row.mtime_ns) if merged.find(row.key) is not None}
    kept = write_sources(folder, named.values())
    failed = {row.path: row for row in failures if row.path not in named and merged.find(row.key) is None}
    write_failures(folder / FAILURES, list(failed.values()))
    totals = {
        "clips": len(merged),
        "seconds": sum(float(seconds) for shard in merged.shards for seconds in shard.seconds),
        "tokens": sum(int(shard.num_frames.sum()) for shard in merged.shards) * contract.num_codebooks,
        "made_with": _joined([description["made_with"], *(made_with if names != description["shards"] else [])]),
    }
    commit(folder, contract, description["codec"], names, kept, totals)
    for path in [*(folder / SHARDS).iterdir(), *folder.glob("sources-*.arrow")]:
        if path.name not in (*names, kept):
            path.unlink()
    for name in (PARTS, WORK):
        shutil.rmtree(folder / name)


def commit(
    folder: Path,
    contract: StoreContract,
    codec: str,
    shards: Sequence[str] = (),
    sources: str = "",
    totals: dict[str, Any] | None = None,
) -> None:
    """Write `store.json`: from now on these files count."""
    description = {
        "format": FORMAT,
        "version": VERSION,
        "codec": codec,
        "contract": asdict(contract),
        **(totals or {"clips": 0, "seconds": 0.0, "tokens": 0, "made_with": {}}),
        "sources": sources,
        "shards": list(shards),
    }
    write_atomic(folder / STORE, (json.dumps(description, indent=2) + "\n").encode())


def moved_sources(store: Path, target: Path) -> Iterator[Source]:
    """Sources of `store` as a store in `target` names them."""
    return (row._replace(path=_moved(row.path, store, target)) for row in committed_sources(store))


def moved_failures(store: Path, target: Path) -> Iterator[Failure]:
    """Failures of `store` as a store in `target` names them."""
    return (row._replace(path=_moved(row.path, store, target)) for row in read_failures(store / FAILURES))


def versions() -> dict[str, str]:
    """Versions of the packages that decide codes."""
    return {name: version(name) for name in _PACKAGES}


def _moved(name: str, store: Path, target: Path) -> str:
    return name if "://" in name else os.path.relpath(store / name, target)


def _joined(made_with: Sequence[dict[str, str]]) -> dict[str, str]:
    """Versions of all makers, several of one package side by side."""
    known = {name: {v for made in made_with for v in made.get(name, "").split(", ") if v} for name in _PACKAGES}
    return {name: ", ".join(sorted(found)) for name, found in known.items() if found}


def _write_shards(folder: Path, index: ClipIndex, contract: StoreContract, shard_codes: int) -> list[str]:
    names: list[str] = []
    for clips in _cut((index.shards[shard].clip(row) for shard, row in index.in_order()), shard_codes):
        names.append(write_shard(folder / SHARDS, clips, contract, f"{len(names):05d}-"))
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
