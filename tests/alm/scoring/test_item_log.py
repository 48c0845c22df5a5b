import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alm.data.example import DataError
from alm.scoring.item_log import ItemLog, read_rows

ROWS = [{"id": "a", "x": 1.5}, {"id": "b", "text": "狗\u2028 \n"}, {"id": "c", "x": None}]


def write(path: Path, key: str = "k", rows: list[dict] = ROWS) -> None:
    with ItemLog(path, key) as log:
        log.append(rows)


def test_rows_come_back_with_resume(tmp_path: Path) -> None:
    path = tmp_path / "runs" / "x.items.jsonl"
    write(path)
    with ItemLog(path, "k", resume=True) as log:
        assert list(log.rows.values()) == [{"key": "k", **row} for row in ROWS]
        log.append([{"id": "d"}])
    assert [json.loads(line)["id"] for line in path.read_text(encoding="utf-8").split("\n")[:-1]] == [
        "a",
        "b",
        "c",
        "d",
    ]


def test_rows_are_on_the_disk_when_append_returns(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    log = ItemLog(path, "k")
    log.append(ROWS[:1])
    assert path.read_text(encoding="utf-8").endswith("\n")
    log.close()


@given(cut=st.integers(0, 200))
def test_a_file_torn_at_any_byte_resumes_with_its_whole_rows(
    tmp_path_factory: pytest.TempPathFactory, cut: int
) -> None:
    path = tmp_path_factory.mktemp("torn") / "x.jsonl"
    write(path)
    whole = path.read_bytes()
    path.write_bytes(whole[:cut])
    kept = whole[:cut].count(b"\n")
    with ItemLog(path, "k", resume=True) as log:
        assert list(log.rows) == ["a", "b", "c"][:kept]
        log.append(ROWS[kept:])
    with ItemLog(path, "k", resume=True) as log:
        assert list(log.rows) == ["a", "b", "c"]


def test_rows_of_another_key_are_never_used_and_never_lost(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    write(path, key="other model")
    with ItemLog(path, "this model", resume=True) as log:
        assert log.rows == {} and log.foreign == 3
        log.append(ROWS[:1])
    assert len((tmp_path / "x.jsonl.old").read_text(encoding="utf-8").split("\n")) == 4


def test_a_fresh_start_keeps_the_former_file(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    write(path)
    with ItemLog(path, "k") as log:
        assert log.rows == {}
    assert (tmp_path / "x.jsonl.old").exists() and path.read_text() == ""


def test_rows_that_are_not_done_are_taken_up_again(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    write(path)
    with ItemLog(path, "k", resume=True, is_done=lambda row: row["id"] != "b") as log:
        assert list(log.rows) == ["a", "c"]


@pytest.mark.parametrize("content", ['{"id": "a"\n{"id": "b", "key": "k"}\n', '["a"]\n', '{"key": "k"}\n'])
def test_a_broken_line_before_the_end_is_an_error(tmp_path: Path, content: str) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text(content)
    with pytest.raises(DataError, match="line 1"):
        ItemLog(path, "k", resume=True)
    assert path.read_text() == content


def test_parts_of_several_processes_become_one_file(tmp_path: Path) -> None:
    path = tmp_path / "[x].jsonl"
    with ItemLog(path, "k") as log, ItemLog(path, "k", part=1) as other:
        log.append(ROWS[1:2])
        other.append([ROWS[0], ROWS[2]])
        together = log.rows | other.rows
        for one in (other, log):
            one.complete(together, ["a", "b", "c"])
            assert list(one.rows) == ["a", "b", "c"]
    assert [row["id"] for row in read_rows(path)] == ["a", "b", "c"]
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("resume", [True, False])
def test_parts_of_a_killed_run_are_taken_over_or_kept(tmp_path: Path, resume: bool) -> None:
    path = tmp_path / "x.jsonl"
    with ItemLog(path, "k") as log, ItemLog(path, "k", part=7) as other:
        log.append(ROWS[:1])
        other.append(ROWS[1:])
        other._file.write('{"id": "torn')
    with ItemLog(path, "k", resume) as log, ItemLog(path, "k", resume, part=1) as other:
        assert set(log.rows) == set(other.rows) == ({"a", "b", "c"} if resume else set())
    old = path.with_name("x.jsonl.old")
    assert resume or len(read_rows(old)) == 3
    assert not path.with_name("x.jsonl.part7").exists()
