"""The files under the readers: rows of JSON and Parquet come in pieces, and what is broken is named."""

import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import alm.data.json_rows
from alm.data.csv_rows import csv_rows
from alm.data.example import DataError, ReadReport
from alm.data.json_rows import json_rows
from alm.data.parquet_rows import audio_of, is_parquet, parquet_rows

VALUES = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(), lambda v: st.lists(v, max_size=3), max_leaves=4
)
ROWS = st.lists(st.dictionaries(st.text(max_size=5), VALUES, max_size=3), max_size=8)


@given(ROWS, st.integers(1, 40), st.sampled_from([None, 1]), st.booleans())
def test_rows_in_pieces_are_the_rows(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict], chunk: int, indent: int | None, ascii_only: bool
) -> None:
    path = tmp_path_factory.mktemp("rows") / "rows.json"
    listed = json.dumps(rows, indent=indent, ensure_ascii=ascii_only)
    forms = {
        None: [listed, "".join(json.dumps(row, ensure_ascii=ascii_only) + "\n" for row in rows)],
        "data": [f'{{"num": 1, "data": {listed}, "after": 2}}'],
    }
    with pytest.MonkeyPatch.context() as patch:
        for key, texts in forms.items():
            patch.setattr(alm.data.json_rows, "_CHUNK", chunk if key is None else 64 + chunk)
            for text in texts:
                path.write_text(text, encoding="utf-8")
                assert list(json_rows(path, key)) == list(enumerate(rows, start=1))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[{"a": 1},\n{"a": ', "line 2 .*is the download whole"),
        ('[{"a": 1}', "is the download whole"),
        ('[{"a": 1}]\n[{"a": 2}]', "more follows after the end of the list"),
        ('[{"a": 1}, 2]', "row 2: a JSON object expected, got int"),
        ('{"a": 1}\n{"a"', "line 2"),
    ],
)
def test_broken_json_is_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.json").write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        list(json_rows(tmp_path / "a.json"))


def test_memory_does_not_grow_with_a_json_file(tmp_path: Path) -> None:
    def peak(rows: int) -> int:
        path = tmp_path / f"{rows}.json"
        path.write_text("[" + ", ".join(['{"t": "' + "x" * 1000 + '"}'] * rows) + "]")
        tracemalloc.start()
        assert sum(1 for _ in json_rows(path)) == rows
        return (tracemalloc.get_traced_memory()[1], tracemalloc.stop())[0]

    assert peak(20_000) < 1.2 * peak(2_000)


def test_csv_rows_keep_every_field(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('\ufeffa,b\r\n" x ","1\n2"\r\n', encoding="utf-8", newline="")
    assert list(csv_rows(path, ["a"])) == [(1, {"a": " x ", "b": "1\n2"})]
    with pytest.raises(DataError, match="columns c expected, got a,b"):
        list(csv_rows(path, ["c"]))


def test_parquet_is_read_row_by_row(tmp_path: Path, write: dict[str, Any]) -> None:
    # one row group of 64 MB of audio: a reader that takes groups whole holds them all
    rows = [
        {"audio": {"bytes": bytes([n]) * (1 << 20), "path": f"{n}.wav"}, "text": str(n), "other": "x"}
        for n in range(64)
    ]
    write["write_parquet"](
        tmp_path / "train-00000-of-00001.parquet",
        rows,
        compression="none",
        use_dictionary=False,
        data_page_size=1 << 20,
    )
    import pyarrow as pa

    report, before = ReadReport("x"), pa.total_allocated_bytes()
    peak = 0
    for number, found in enumerate(parquet_rows(tmp_path, ["audio"], report, "train")):
        assert audio_of(found, report) == {"bytes": bytes([number]) * (1 << 20), "path": f"{number}.wav"}
        assert found.id == f"train-00000-of-00001:{number + 1}" and set(found.row) == {"audio"}
        peak = max(peak, pa.total_allocated_bytes() - before)
    assert report.rows == 64 and peak < 40 << 20


def test_what_a_parquet_data_set_lacks_is_named(tmp_path: Path, write: dict[str, Any]) -> None:
    report = ReadReport("x")
    write["write_parquet"](
        tmp_path / "data" / "test-00000-of-00001.parquet", [{"audio": {"bytes": None, "path": None}, "text": "a"}]
    )
    (found,) = parquet_rows(tmp_path, ["audio"], report, "test")
    assert audio_of(found, report) is None and report.missing_audio == ["test-00000-of-00001:1"]
    with pytest.raises(DataError, match="no split 'train'; it has test"):
        list(parquet_rows(tmp_path, ["audio"], report, "train"))
    with pytest.raises(DataError, match="columns caption expected, got audio, text"):
        list(parquet_rows(tmp_path, ["caption"], report, "test"))
    with pytest.raises(DataError, match="no/such: no such file, and no data set that can be opened"):
        list(parquet_rows("no/such", ["audio"], report, "test"))
    assert is_parquet("openslr/librispeech_asr") and is_parquet("a/set-v1.0") and not is_parquet("train.csv")


def test_rows_without_audio_count_as_missing(tmp_path: Path, write: dict[str, Any]) -> None:
    from alm.data.catalogue import Source, read_source

    rows = [
        {"audio": audio, "text": "a"}
        for audio in ({"bytes": b"x", "path": "x"}, None, {"bytes": None, "path": "gone.wav"})
    ]
    write["write_parquet"](tmp_path / "train-00000-of-00001.parquet", rows)
    report = ReadReport("folder")
    assert len(list(read_source(Source("folder", str(tmp_path)), report, None))) == 1
    assert dict(report.dropped) == {"audio file missing": 2}
    assert report.missing_audio == ["train-00000-of-00001:2", "gone.wav"]
    with pytest.raises(DataError, match="2 of 3 examples lack"):
        list(read_source(Source("folder", str(tmp_path)), ReadReport("folder"), 0.5))


def test_splits_and_configurations_of_a_card(tmp_path: Path, write: dict[str, Any]) -> None:
    row = {"audio": {"bytes": b"x", "path": "84-1-0.flac"}, "text": "A", "id": "84-1-0"}
    write["write_parquet"](tmp_path / "data" / "train.clean.100" / "0000.parquet", [row])
    card = "---\nconfigs:\n- config_name: clean\n  data_files:\n  - split: train.clean.100\n    path: data/train.clean.100/*.parquet\n---\n"
    (tmp_path / "README.md").write_text(card, encoding="utf-8")
    report = ReadReport("x")
    assert len(list(parquet_rows(tmp_path, ["text"], report, "train.clean.100", "clean"))) == 1
    with pytest.raises(DataError, match=r"other.*Available: \['clean'\]"):
        list(parquet_rows(tmp_path, ["text"], report, "train.clean.100", "other"))
