"""Text alone: conversations and plain text from every form, nothing stripped, nothing silently dropped."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from alm.data.catalogue import Source, read_source
from alm.data.example import DataError, ReadReport


def said(text: str, role: str = "assistant") -> dict[str, Any]:
    return {"role": role, "content": [{"type": "text", "text": text}]}


def read(path: Path, options: str = "") -> tuple[list[Any], ReadReport]:
    report = ReadReport("text")
    found = list(read_source(Source.parse(f"text={path}{options}"), report))
    return [example.messages for example in found], report


def test_every_form(tmp_path: Path) -> None:
    chat = [{"role": "user", "content": " Hi? "}, {"role": "assistant", "content": "Hello. "}]
    rows = [{"messages": chat}, {"text": " Ünï\ncode "}, {"text": " "}, {"messages": chat[:1]}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    messages, report = read(tmp_path / "a.jsonl")
    assert messages == [[said(" Hi? ", "user"), said("Hello. ")], [said(" Ünï\ncode ")]]
    assert report.rows == 4 and report.dropped == {"empty text": 2} and report.examples == 2
    (tmp_path / "b.txt").write_text("One.\nTwo.\n\n\n  Three.\n")
    assert read(tmp_path / "b.txt")[0] == [[said("One.\nTwo.")], [said("  Three.")]]
    (tmp_path / "c.json").write_text(json.dumps([{"story": "Once."}]))
    assert read(tmp_path / "c.json", ",text=story")[0] == [[said("Once.")]]


def test_parquet(tmp_path: Path) -> None:
    chat = [{"role": "user", "content": "Hi?"}, {"role": "assistant", "content": "Hello."}]
    (tmp_path / "data").mkdir()
    rows = pa.Table.from_pylist([{"text": "One.", "messages": None}, {"text": "", "messages": chat}])
    pq.write_table(rows, tmp_path / "data" / "test-00000.parquet")
    messages, report = read(tmp_path / "data", ",split=test")
    assert messages == [[said("One.")], [said("Hi?", "user"), said("Hello.")]] and report.rows == 2
    pq.write_table(pa.Table.from_pylist([{"words": "x"}]), tmp_path / "data" / "train-00000.parquet")
    with pytest.raises(DataError, match="row 1: neither messages nor a text"):
        read(tmp_path / "data")


@pytest.mark.parametrize("row", [{"words": "x"}, {"messages": "x"}, {"messages": [{"role": "dog", "content": "x"}]}])
def test_malformed_rows_are_named(tmp_path: Path, row: Any) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": "x"}) + "\n" + json.dumps(row) + "\n")
    with pytest.raises(DataError, match=r"a\.jsonl, row 2: "):
        read(tmp_path / "a.jsonl")
