import json
from pathlib import Path

import pytest

from alm.data.example import DataError
from alm.scoring.results import Result, read_result, render_table, write_result
from alm.scoring.statistics import Estimate, wilson


def result() -> Result:
    names = ("official", "option", "loglikelihood")
    beside = ("no_audio_loglikelihood", "chance", "constant_position", "longest_choice")
    scores = {name: wilson(343, 1000) for name in names}
    controls = {name: Estimate(0.293, 0.293, 0.293, 1000) for name in beside}
    gains = ("chance_official", "chance_loglikelihood", "chance_option", "no_audio_loglikelihood")
    controls |= {f"gain_over_{name}": Estimate(0.05, 0.014, 0.086, 1000) for name in gains}
    groups = {
        "sub_category": {
            "Professional Knowledge and Reasoning": {name: wilson(11, 11) for name in (*names, *beside)},
            "Counting": {name: wilson(0, 989) for name in (*names, *beside)},
        }
    }
    return Result(
        benchmark="MMAR",
        system="tiny",
        scores=scores,
        groups=groups,
        controls=controls,
        counts={"items": 1000, "missing": 0, "unparsed": 12, "truncated": 3, "unknown_ids": 0},
        unavailable={"wer": "needs ASR"},
        manifest={"data_sha256": "ab", "constant_position": 2},
        items="mmar.items.jsonl",
    )


def test_the_file_has_the_documented_form_and_reads_back(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "mmar.json"
    write_result(result(), path)
    data = json.loads(path.read_text(encoding="utf-8"))
    assert list(data) == [
        "benchmark",
        "system",
        "scores",
        "groups",
        "controls",
        "counts",
        "unavailable",
        "manifest",
        "items",
    ]
    assert set(data["scores"]["official"]) == {"value", "low", "high", "n"}
    assert data["groups"]["sub_category"]["Counting"]["chance"]["n"] == 989
    assert read_result(path) == result()


def test_writing_is_atomic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "mmar.json"
    write_result(result(), path)
    before = path.read_bytes()
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_result(result(), path)
    assert path.read_bytes() == before


def test_nan_is_never_written(tmp_path: Path) -> None:
    broken = Result("MMAR", "x", {"official": Estimate(float("nan"), 0, 1, 3)})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_result(broken, tmp_path / "x.json")


@pytest.mark.parametrize("content", ["{}", "[1]", "not json", '{"scores": {"a": 3}, "groups": {}, "controls": {}}'])
def test_another_file_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(content)
    with pytest.raises(DataError, match="not a result file"):
        read_result(path)
    with pytest.raises(DataError, match="cannot be read"):
        read_result(tmp_path / "none.json")


def test_the_table_fits_100_columns_and_says_everything() -> None:
    table = render_table(result())
    lines = table.splitlines()
    assert max(len(line) for line in lines) <= 100
    assert "MMAR · tiny · 1,000 items" in lines[0]
    assert lines[1] == "0 missing, 12 unparsed (1.2 %), 3 truncated (0.3 %)"
    assert "official                            34.3 %  [31.4, 37.3]" in table
    assert "constant_position (no. 2)           29.3 %" in table
    assert "not available: needs ASR" in table
    gain = "+5.0 [+1.4, +8.6]"
    line = {
        name: next(one for one in lines if one.startswith(name))
        for name in ("chance", "no_audio", "longest", "controls")
    }
    assert line["controls"].split() == ["controls", "gain", "of", "official", "gain", "of", "log-lik."]
    assert line["chance"].count(gain) == 2 and line["chance"].endswith(gain) and gain not in line["longest"]
    assert line["no_audio"].count(gain) == 1 and len(line["no_audio"]) == len(line["chance"]) == len(line["controls"])
    head, counting, knowledge = lines[-3:]
    assert head.split() == [
        "sub_category",
        "items",
        "official",
        "option",
        "log-lik.",
        "no",
        "audio",
        "chance",
        "const.",
        "longest",
    ]
    assert counting.startswith("Counting") and knowledge.startswith("Professional Knowledge an…")
    assert "100 74–100" in knowledge and len(head) == len(counting) == len(knowledge)
