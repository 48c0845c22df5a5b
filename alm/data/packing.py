"""Packing: which sequences share a row, such that rows are full and no sequence is cut."""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from alm.data.example import DataError

Row = NDArray[np.int64]
"""Numbers of the sequences in one row, in order."""


def pack(lengths: Sequence[int] | NDArray[np.integer], max_length: int, seed: int = 0) -> list[Row]:
    """Rows of at most `max_length` tokens, by best-fit decreasing; the same lengths and seed give the same rows.

    Sequences of equal length are told apart by a seeded shuffle, so that what shares a row has nothing to do with the order of the data.
    Raises `DataError` where a sequence does not fit in a row, or is empty.
    """
    sizes = np.asarray(lengths, dtype=np.int64)
    if len(sizes) and not 0 < sizes.min() <= sizes.max() <= max_length:
        raise DataError(f"sequences of 1 to {max_length} tokens can be packed, got {sizes.min()} to {sizes.max()}")
    order = np.random.default_rng(seed).permutation(len(sizes))
    order = order[np.argsort(-sizes[order], kind="stable")]
    rows: list[list[int]] = []
    open_rows: dict[int, list[int]] = defaultdict(list)  # by the room that is left
    rooms = _Rooms(max_length)
    for number in order.tolist():
        size = int(sizes[number])
        room = rooms.smallest_from(size)
        if room is None:
            rows.append([])
            row, room = len(rows) - 1, max_length
        else:
            row = open_rows[room].pop()
            if not open_rows[room]:
                rooms.remove(room)
        rows[row].append(number)
        if left := room - size:
            open_rows[left].append(row)
            rooms.add(left)
    return [np.array(row, dtype=np.int64) for row in rows]


class _Rooms:
    """A set of whole numbers up to `largest`, as the bits of one: the smallest that is large enough is found at once."""

    def __init__(self, largest: int) -> None:
        self.bits, self.largest = 0, largest

    def add(self, room: int) -> None:
        self.bits |= 1 << room

    def remove(self, room: int) -> None:
        self.bits &= ~(1 << room)

    def smallest_from(self, size: int) -> int | None:
        above = self.bits >> size
        return size + (above & -above).bit_length() - 1 if above else None
