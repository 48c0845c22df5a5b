"""Data sets as a recipe's command line names them: `NAME=PATH,OPTION=VALUE,…,tasks=A+B,weight=2`."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

from alm.arguments import ConfigFileError
from alm.data.catalogue import CATALOGUE, QUESTIONS, Source, read_source
from alm.data.example import CAPTION, DataError, Example, ReadReport
from alm.data.leaks import LeakGuard
from alm.data.tasks import AS_IT_IS, TASKS
from alm.training.data import DataSet


class Named(NamedTuple):
    """A data set as named: the source, the tasks it is used for (none: the recipe's), and its share (None: by size)."""

    source: Source
    tasks: tuple[str, ...]
    weight: float | None

    @classmethod
    def parse(cls, value: str) -> "Named":
        """Raises `DataError` naming what is accepted."""
        parts = re.split(r",(?=(?:tasks|weight)=)", value)
        own = dict(part.split("=", 1) for part in parts[1:])
        # an option may stand behind them
        tails = {name: text.partition(",") for name, text in own.items()}
        source = Source.parse(",".join([parts[0], *(rest for _, _, rest in tails.values() if rest)]))
        tasks = tuple(tails["tasks"][0].split("+")) if "tasks" in tails else ()
        if unknown := [task for task in tasks if task not in TASKS]:
            raise DataError(f"{value}: no task is called {unknown[0]!r}; there are {', '.join(TASKS)}")
        try:
            weight = float(tails["weight"][0]) if "weight" in tails else None
        except ValueError:
            raise DataError(f"{value}: weight must be a number, got {tails['weight'][0]!r}") from None
        if weight is not None and not 0 < weight < math.inf:
            raise DataError(f"{value}: weight must be a number above 0, got {weight:g}")
        return cls(source, tasks, weight)


def data_sets(
    values: Sequence[str],
    usual: Mapping[str, tuple[str, ...]],
    max_missing: float,
    guard: LeakGuard | None = None,
) -> list[DataSet]:
    """Data sets of a command line, one for each task; `usual` tasks by the kind of a data set's text.

    Raises `DataError` for what cannot be read as a data set, `ConfigFileError` where some have weights and some none.
    """
    named = [Named.parse(value) for value in values]
    weighted = [one.weight is not None for one in named]
    if any(weighted) and not all(weighted):
        raise ConfigFileError("give each data set of --data a weight, or none")
    return [
        _data_set(one.source, task, None if one.weight is None else one.weight / len(tasks), max_missing, guard)
        for one in named
        for tasks in [one.tasks or _usual(one.source, usual)]
        for task in tasks
    ]


def text_source(value: str) -> Source:
    """Text alone as `value` names it: `text=PATH,OPTION=VALUE,…` of the catalogue, or a path or id of the Hub."""
    return Source.parse(value if value.startswith("text=") else f"text={value}")


def replay_set(value: str, share: float) -> DataSet:
    """Text alone (`text_source`) that takes `share` of the rows, whatever the others' weights.

    Raises `ConfigFileError` where that is no share, `DataError` where `value` names no data set.
    """
    if not 0 < share < 1:
        raise ConfigFileError(f"--replay_share must be above 0 and below 1, got {share:g}; leave --replay out for none")
    return replace(_data_set(text_source(value), AS_IT_IS, None, 0.0, None), share=share)


def _usual(source: Source, usual: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    kind = CATALOGUE[source.name].kind
    if kind == QUESTIONS:
        return (AS_IT_IS,)
    return usual[kind if kind in usual else str(source.options.get("kind", CAPTION))]


def _data_set(source: Source, task: str, weight: float | None, max_missing: float, guard: LeakGuard | None) -> DataSet:
    paths = [source.path, *(str(value) for value in source.options.values())]
    # any number of folders may be given: which one is meant is told by its own name
    name = f"{source.name} {Path(source.path).stem}" if source.name == "folder" else source.name
    return DataSet(
        name,
        partial(_read, source, max_missing=max_missing, guard=guard),
        inputs=[str(source), guard and list(guard.listed)],
        files=tuple(path for path in paths if Path(path).is_file()),
        task=task,
        weight=weight,
    )


def _read(source: Source, report: ReadReport, max_missing: float, guard: LeakGuard | None) -> Iterator[Example]:
    return read_source(source, report, max_missing, guard)
