"""Rows of a data set in Parquet, of the Hub or of a local folder, streamed: no copy, no decoded audio, a few rows in memory."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from alm.data.example import AUDIO_MISSING, Content, DataError, ReadReport
from alm.data.json_rows import Row

ROWS_AT_A_TIME = 16
"""Rows drawn from a shard at once: their encoded audio is in memory together."""
METADATA_SUFFIXES = (".csv", ".tsv", ".json", ".jsonl", ".txt")
"""A path with one of these means a file, also where none is there; ids of the Hub may hold other dots."""
_BUFFER = 1 << 20  # bytes: without it a whole row group's audio is read at once


class ParquetRow(NamedTuple):
    """A row with the name of its shard and its number there, from 1."""

    shard: str
    number: int
    row: Row

    @property
    def id(self) -> str:
        """`<shard's stem>:<number>`."""
        return f"{Path(self.shard).stem}:{self.number}"


def is_parquet(path: Path | str) -> bool:
    """Whether a reader should look for Parquet: in a local folder that holds such files, or on the Hub where nothing lies at `path`."""
    local = Path(path)
    return (
        any(local.rglob("*.parquet"))
        if local.is_dir()
        else not local.exists() and local.suffix not in METADATA_SUFFIXES
    )


def parquet_rows(
    name: Path | str,
    columns: Sequence[str],
    report: ReadReport,
    split: str,
    config: str | None = None,
    optional: Sequence[str] = (),
) -> Iterator[ParquetRow]:
    """Yield the rows of a split with `columns` and those of `optional` that are there; counts them in `report.rows`.

    `name` is an id of the Hub or a local folder, whose splits and configurations are told as the Hub tells them (the card's header,
    else file and folder names). Raises `DataError` naming what there is where split, configuration or columns are not, or the files
    are not Parquet.
    """
    import fsspec
    import pyarrow.parquet as pq

    for shard in shards(name, split, config):
        with fsspec.open(shard, "rb") as file:
            table = pq.ParquetFile(file, buffer_size=_BUFFER)
            names = table.schema_arrow.names
            if not set(columns) <= set(names):
                raise DataError(f"{shard}: columns {', '.join(columns)} expected, got {', '.join(names)}")
            wanted = [column for column in (*columns, *optional) if column in names]
            number = 0
            for batch in table.iter_batches(ROWS_AT_A_TIME, columns=wanted):
                for row in batch.to_pylist():
                    number += 1
                    report.rows += 1
                    yield ParquetRow(shard, number, row)


def audio_of(found: ParquetRow, report: ReadReport, column: str = "audio") -> Content | None:
    """The audio of a row as an item without its type, `{"bytes": …, "path": name}` or `{"path": file}`; None, counted, where it has none.

    Raises `DataError` where the column holds something else.
    """
    value: Any = found.row[column]
    if value is not None and not (isinstance(value, dict) and {"bytes", "path"} & value.keys()):
        raise DataError(
            f"{found.shard}, row {found.number}: {column!r} must hold bytes and path, got {type(value).__name__}"
        )
    item = {key: value[key] for key in ("bytes", "path") if value.get(key)} if value else {}
    if not item:
        report.dropped[AUDIO_MISSING] += 1
        report.missing_audio.append(found.id)
        return None
    return item


def shards(name: Path | str, split: str, config: str | None = None) -> list[str]:
    """Addresses of the Parquet files of one split. Raises `DataError` as `parquet_rows` does."""
    import datasets

    local = Path(name).is_dir()
    try:
        files = datasets.load_dataset_builder(
            str(Path(name).resolve()) if local else str(name), config
        ).config.data_files
    except (OSError, ValueError, RuntimeError) as error:  # not there, no such configuration, a loading script
        raise DataError(
            f"{name}: no such file, and no data set that can be opened ({type(error).__name__}: {error})"
        ) from error
    found = [str(file) for file in (files or {}).get(split, [])]
    other = next((file for file in found if not file.endswith(".parquet")), None)
    if not found or other is not None:
        splits = ", ".join(map(str, files or ())) or "no files"
        what = (
            f"its split {split} holds {other}, and Parquet is needed"
            if other
            else f"no split {split!r}; it has {splits}"
        )
        raise DataError(f"{name}: {what}")
    return found
