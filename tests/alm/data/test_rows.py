"""Packed and mixed rows: every sequence once a pass, shares as asked, any position without the ones before it."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from alm.data.rows import PackedRows, Shares, Source
from alm.data.sequence_table import ClipPart, CompactSequence, SequenceTable, write_table

LENGTH = 16


class Store:
    def codes_by_key(self, key: str) -> Any:
        return np.arange(int(key))[None] % 64


def table(folder: Path, name: str, lengths: list[int], first: int) -> SequenceTable:
    """Sequences of text whose ids tell them apart, every third with a clip of two frames in it."""

    def rows() -> Any:
        for number, length in enumerate(lengths):
            ids = [first + number] * length
            clip = number % 3 == 0 and length > 2
            yield CompactSequence([*ids[:-2], -1] if clip else ids, [True] * (length - clip), length, length, name)

    write_table(rows(), [ClipPart("9", 2)], folder / name)
    return SequenceTable(folder / name)


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> list[SequenceTable]:
    folder, rng = tmp_path_factory.mktemp("tables"), np.random.default_rng(0)
    sizes = ((40, 0), (9, 100), (1, 200))
    return [table(folder, f"t{first}", rng.integers(2, LENGTH, size).tolist(), first) for size, first in sizes]


def rows_of(
    tables: list[SequenceTable], vocabulary: Any, weights: Any = (None, None, None), **options: Any
) -> PackedRows:
    sources = [Source(f"s{n}", one, weight) for n, (one, weight) in enumerate(zip(tables, weights, strict=True))]
    return PackedRows(sources, Store(), vocabulary, LENGTH, **options)  # type: ignore[arg-type]


def test_a_pass_has_every_sequence_once_and_none_cut(tables: list[SequenceTable], make_vocabulary: Any) -> None:
    voc = make_vocabulary(text_ids=300)
    rows = rows_of(tables, voc, seed=3)
    for turn in range(2):
        seen: dict[int, int] = {}
        for position in range(turn * rows.epoch_rows, (turn + 1) * rows.epoch_rows):
            rows.count = position + 1
            row = rows[position]
            assert sum(row["seq_lengths"]) == len(row["input_ids"]) == len(row["labels"]) <= LENGTH
            assert np.array_equal(row["input_ids"], row["labels"])  # all labelled
            for part in np.split(row["input_ids"], np.cumsum(row["seq_lengths"])[:-1]):
                seen[int(part[0])] = len(part)
                assert set(part[1:].tolist()) <= {int(part[0]), voc.first_id, voc.first_id + 1}
        assert seen == {
            first + n: int(size)
            for one, first in zip(tables, (0, 100, 200), strict=True)
            for n, size in enumerate(one.lengths)
        }


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.tuples(*[st.floats(0.1, 5)] * 3), st.integers(0, 2**31))
def test_shares_are_as_asked_and_any_position_stands_alone(
    tables: list[SequenceTable], make_vocabulary: Any, weights: Any, seed: int
) -> None:
    voc = make_vocabulary(text_ids=300)
    rows = rows_of(tables, voc, weights, seed=seed, count=10_000)
    drawn = [rows.draws.at(*divmod(position, rows.epoch_rows)).source for position in range(3 * rows.epoch_rows)]
    for n, weight in enumerate(weights):  # whole rows a pass, each source at least one
        assert abs(drawn.count(n) - 3 * rows.epoch_rows * weight / sum(weights)) <= 3 * 3
    later = rows_of(tables, voc, weights, seed=seed, count=10_000)
    for position in (9_999, 5_000, 0, 7):
        one, other = rows[position], later[position]
        assert np.array_equal(one["input_ids"], other["input_ids"]) and one["seq_lengths"] == other["seq_lengths"]


def test_workers_read_the_same(tables: list[SequenceTable], make_vocabulary: Any) -> None:
    rows = rows_of(tables, make_vocabulary(text_ids=300), seed=1)
    again = pickle.loads(pickle.dumps(rows))
    assert all(np.array_equal(rows[n]["input_ids"], again[n]["input_ids"]) for n in range(len(rows)))
    assert Shares.of(rows).rows == [len(one) for one in rows.rows] and sum(Shares.of(rows).shares) == pytest.approx(1)
    with pytest.raises(IndexError):
        rows[len(rows)]


def test_weights_are_of_all_or_none(tables: list[SequenceTable], make_vocabulary: Any) -> None:
    with pytest.raises(ValueError, match="a weight, or none"):
        rows_of(tables, make_vocabulary(text_ids=300), (1.0, None, 2.0))
