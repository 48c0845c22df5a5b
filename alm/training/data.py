"""From named data sets to what a trainer reads: tables made once, by one process, and reused by a run that goes on."""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from alm.data.example import Example, ReadReport
from alm.data.rows import PackedRows, Source
from alm.data.sequence_table import SequenceTable, open_if_same, require_rows, write_table
from alm.data.sequences import SequenceBuilder, SequenceReport, TooLong
from alm.data.tasks import AS_IT_IS, as_task
from alm.data.tokens import TokenStore
from alm.processing import AudioLanguageProcessor


@dataclass(frozen=True)
class DataSet:
    """One data set under one task: how its examples are read, and what that depends on.

    `inputs` is everything that decides the examples but files' contents (paths, options); `files` are the metadata files whose size and
    time are looked at, so that a change is noticed without reading them.
    """

    name: str
    read: Callable[[ReadReport], Iterator[Example]]
    inputs: Any
    files: tuple[str, ...] = ()
    task: str = AS_IT_IS
    weight: float | None = None
    share: float | None = None
    """A share of the rows that is kept whatever the others' weights."""


@dataclass(frozen=True)
class SequenceOptions:
    """How examples become sequences (`alm.data.sequences.SequenceBuilder`)."""

    max_length: int
    questions_per_conversation: int = 1
    too_long: TooLong = "error"
    seed: int = 0
    max_missing: float = 0.1


@dataclass
class DataReport:
    """What was read and what became of it, over all data sets; `reused`: tables of an earlier start of this run."""

    read: list[ReadReport] = field(default_factory=list)
    sequences: SequenceReport = field(default_factory=SequenceReport)
    reused: int = 0


def sequences_of(
    data: DataSet,
    processor: AudioLanguageProcessor,
    store: TokenStore | None,
    options: SequenceOptions,
    report: DataReport,
) -> tuple[Iterator[Any], SequenceBuilder]:
    """Compact sequences of one data set, with progress, and their builder (whose `clips` say the clips)."""
    builder = SequenceBuilder(processor, store, **vars(options))
    report.read.append(ReadReport(data.name))
    examples = tqdm(data.read(report.read[-1]), desc=f"reading {data.name}", unit=" examples")
    return builder.build(as_task(examples, data.task, options.seed), report.sequences), builder


def write_tables(
    sets: Sequence[DataSet],
    processor: AudioLanguageProcessor,
    store: TokenStore | None,
    options: SequenceOptions,
    folder: Path,
) -> DataReport:
    """Make the tables of all data sets in `folder`, one process for all; a table made of the same inputs before is kept."""
    report = DataReport()
    for number, data in enumerate(sets):
        where, inputs = _place(folder, number), _inputs(data, processor, store, options)
        if (table := open_if_same(where, inputs)) is not None:
            known = table.description
            report.reused += 1
            report.read.append(ReadReport.from_dict(known["read"]))
            report.sequences.merge(SequenceReport.from_dict(known["sequences"]))
            continue
        own = DataReport()
        rows, builder = sequences_of(data, processor, store, options, own)
        write_table(rows, builder.clips, where, partial(_description, own, inputs))
        report.read += own.read
        report.sequences.merge(own.sequences)
    return report


def open_rows(
    sets: Sequence[DataSet],
    processor: AudioLanguageProcessor,
    store: TokenStore | None,
    options: SequenceOptions,
    folder: Path,
    count: int | None = None,
) -> PackedRows:
    """The packed and mixed rows of the tables that `write_tables` made; `count` of them, or one pass."""
    tables = [require_rows(SequenceTable(_place(folder, number))) for number in range(len(sets))]
    sources = [
        Source(f"{one.name} {one.task}", table, one.weight, one.share) for one, table in zip(sets, tables, strict=True)
    ]
    return PackedRows(sources, store, processor.vocabulary, options.max_length, count, options.seed)


def data_digest(rows: PackedRows) -> str:
    """16 hexadecimal digits over all sequences, their packing and their mixture: what a run that goes on must find again."""
    parts = [
        [source.table.description["digest"] for source in rows.sources],
        [len(packed) for packed in rows.rows],
        rows.draws.counts,
        rows.draws.seed,
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def _place(folder: Path, number: int) -> Path:
    return folder / f"{number:03d}"


def _description(report: DataReport, inputs: str) -> dict[str, Any]:
    (read,) = report.read
    return {"inputs": inputs, "read": vars(read), "sequences": vars(report.sequences)}


def _inputs(
    data: DataSet, processor: AudioLanguageProcessor, store: TokenStore | None, options: SequenceOptions
) -> str:
    stats = [(name, Path(name).stat()) for name in data.files if Path(name).exists()]
    facts = [
        [data.name, data.task, data.inputs],
        [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats],
        processor.vocabulary.hash,
        None if store is None else [store.contract["codec_fingerprint"], len(store)],
        vars(options),
    ]
    return hashlib.sha256(json.dumps(facts, default=str).encode()).hexdigest()[:16]
