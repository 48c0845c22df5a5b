"""Clips of Parquet shards that stay where they are, on the Hub, in a bucket or on a disk: read a row group at a time."""

import bisect
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate
from pathlib import Path
from typing import Any

from codec.data import Clip, choose_caption_column, parquet_shards

KEPT_GROUPS = 8
"""Row groups in memory. Mixtures go through four at a time (`codec.mixing`), and two generations of them overlap."""


class StreamedClips(Sequence[Clip]):
    """Clips of a data set of the Hub, or of a local folder of Parquet files, without copying the data set.

    Only the shards' footers are read at the start. A clip costs its row group (as a rule 100 to 1,000 rows), which stays in memory while
    its neighbours are asked for: `blocks` tells a mixture what belongs together. An index always means the same clip, so that a run
    resumes at once. Raises `ClipListError` where there are no Parquet files, or not the columns that are needed.
    """

    def __init__(self, name: str, split: str = "train", caption_column: str | None = None) -> None:
        self.shards = parquet_shards(name, split)
        with ThreadPoolExecutor(16) as pool:
            footers = list(pool.map(_footer, self.shards))
        self.column = choose_caption_column(footers[0][1], caption_column, "audio", name)
        self._groups = [(shard, g) for shard, (rows, _) in enumerate(footers) for g in range(len(rows))]
        self.blocks = tuple(rows for sizes, _ in footers for rows in sizes)
        self._starts = [0, *accumulate(self.blocks)]
        self._read: OrderedDict[int, list[dict[str, Any]]] = OrderedDict()

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, index: int | slice) -> Any:
        """One clip, or a list of them for a slice."""
        if isinstance(index, slice):
            return [self[i] for i in range(len(self))[index]]
        index = range(len(self))[index]
        block = bisect.bisect_right(self._starts, index) - 1
        row = self._rows(block)[index - self._starts[block]]
        audio = row["audio"]
        return Clip(audio["bytes"] or Path(audio["path"]), row[self.column])

    @property
    def captions(self) -> list[str]:
        """The column of captions alone, of all shards; the audio is not read."""
        with ThreadPoolExecutor(16) as pool:
            columns = list(pool.map(lambda shard: _read_table(shard, [self.column]), self.shards))
        return [text for column in columns for text in column[self.column].to_pylist()]

    def _rows(self, block: int) -> list[dict[str, Any]]:
        if block not in self._read:
            shard, group = self._groups[block]
            self._read[block] = _read_table(self.shards[shard], ["audio", self.column], group).to_pylist()
            while len(self._read) > KEPT_GROUPS:
                self._read.popitem(last=False)
        self._read.move_to_end(block)
        return self._read[block]

    def __getstate__(self) -> dict[str, Any]:
        """Without the groups in memory: each worker reads its own."""
        return {**self.__dict__, "_read": OrderedDict()}


def _open(shard: str) -> Any:
    import fsspec

    return fsspec.open(shard, "rb").open()


def _footer(shard: str) -> tuple[list[int], list[str]]:
    """Rows of each row group, and the columns."""
    import pyarrow.parquet as pq

    with _open(shard) as file:
        metadata = pq.read_metadata(file)
        schema = metadata.schema.to_arrow_schema()
    return [metadata.row_group(g).num_rows for g in range(metadata.num_row_groups)], list(schema.names)


def _read_table(shard: str, columns: list[str], group: int | None = None) -> Any:
    import pyarrow.parquet as pq

    with _open(shard) as file:
        table = pq.ParquetFile(file)
        return table.read(columns) if group is None else table.read_row_group(group, columns)
