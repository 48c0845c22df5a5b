"""`eval/compare.py` on result files of both kinds."""

import json
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alm.data.example import DataError
from alm.scoring.comparison import compare
from alm.scoring.results import Result, write_result
from alm.scoring.statistics import Estimate, paired_bootstrap

ROOT = Path(__file__).parents[2]


@pytest.fixture
def store(tmp_path: Path) -> Callable[..., str]:
    def write(name: str, rows: list[dict[str, Any]], benchmark: str = "MMAR", **more: Any) -> str:
        items = f"{name}.items.jsonl"
        (tmp_path / items).write_text("".join(json.dumps(row) + "\n" for row in rows))
        write_result(
            Result(**{"benchmark": benchmark, "system": name, "scores": {}, "items": items} | more),
            tmp_path / f"{name}.json",
        )
        return str(tmp_path / f"{name}.json")

    return write


def test_items_are_paired_by_id(store: Callable[..., str], capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    right = rng.random((2, 50)) < [[0.5], [0.7]]
    rows = [[{"id": i, "correct": {"official": bool(side[i])}} for i in range(50)] for side in right]
    a, b = store("a", rows[0]), store("b", [*rows[1][::-1], {"id": 99, "correct": {"official": True}}])
    found = compare(a, b)
    expected = paired_bootstrap(right[1].astype(float), right[0].astype(float))
    assert found.differences["official"].value == pytest.approx(right[1].mean() - right[0].mean())
    assert found.differences["official"].n == 50 and found.unpaired == 1
    assert found.differences["official"].low == pytest.approx(expected.low, abs=0.05)  # other resamples
    spread = (right[1].astype(float) - right[0]).std(ddof=1)
    assert found.detectable["official"] == pytest.approx(2.8 * spread / 50**0.5)
    runpy.run_path(str(ROOT / "eval" / "compare.py"))["main"](["--results", a, b])
    assert "official" in (told := capsys.readouterr().out) and f"{expected.value:+.4f}" in told


def test_reconstructions_and_their_words(store: Callable[..., str]) -> None:
    def rows(gain: float, errors: int) -> list[dict[str, Any]]:
        words = {"said": "a b", "made": {"heard": "a", "errors": errors, "words": 2}}
        return [
            {"id": f"x/{i}", "scores": {"stoi": i / 10 + gain, "pesq": None}, **({"words": words} if i else {})}
            for i in range(5)
        ]

    a, b = (store(name, rows(*how), "codec") for name, how in (("a", (0, 1)), ("b", (0.1, 0))))
    found = compare(a, b)
    assert found.differences["stoi"].value == pytest.approx(0.1) and "pesq" not in found.differences
    assert found.differences["wer_macro"].value == -0.5 and found.differences["wer_macro"].n == 4


def test_what_cannot_be_compared_is_told(store: Callable[..., str], tmp_path: Path) -> None:
    a = store("a", [{"id": i, "correct": {"official": True}} for i in range(3)])
    with pytest.raises(DataError, match="only results of one benchmark"):
        compare(a, store("b", [], "codec"))
    with pytest.raises(DataError, match="no score of the same items"):
        compare(a, store("c", [{"id": 7, "correct": {"official": True}}]))
    (tmp_path / "a.items.jsonl").unlink()
    with pytest.raises(DataError, match="rows of its items cannot be read"):
        compare(a, a)
    with pytest.raises(SystemExit):
        runpy.run_path(str(ROOT / "eval" / "compare.py"))["main"](["--results", a])


def test_other_data_clips_or_recognisers_are_refused(
    store: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    def rows(clip: str) -> list[dict[str, Any]]:
        return [{"id": i, "correct": {"official": True}, "clips": [clip, None]} for i in range(3)]

    def heard(manifest: dict[str, Any]) -> str:
        said = [{"id": i, "scores": {"wer_macro": 0.1, "sim": 0.5}} for i in range(3)]
        return store(str(len(str(manifest))), said, "SEED-TTS en", manifest={"metrics": manifest})

    a, other = (
        store("a", rows("x"), manifest={"data_sha256": "1"}),
        store("b", rows("x"), manifest={"data_sha256": "2"}),
    )
    cases = {
        "data_sha256 1 and 2": (a, other),
        "the audio of 3 items": (a, store("c", rows("y"), manifest={"data_sha256": "1"})),
        "asr whisper and asr unknown": (heard({"asr": "whisper"}), heard({"asr": None})),
        "sim one and another": (heard({"asr": "w", "sim": "one"}), heard({"asr": "w", "sim": "another"})),
    }
    for why, (first, second) in cases.items():
        with pytest.raises(DataError, match=why):
            compare(first, second)
        assert [why in what for what in compare(first, second, allow_differing=True).differing] == [True]
    runpy.run_path(str(ROOT / "eval" / "compare.py"))["main"](["--results", a, other, "--allow_differing"])
    assert "not the system alone: data_sha256 1 and 2" in capsys.readouterr().out
    # what only one has measured by makes no difference
    assert not compare(heard({"asr": "w", "sim": None}), heard({"asr": "w", "sim": "another"})).differing


def test_rows_of_another_run_beside_a_result_are_noticed(store: Callable[..., str]) -> None:
    scores = {"official": Estimate(0.5, 0.1, 0.9, 2)}
    rows = [{"id": i, "correct": {"official": bool(i)}} for i in range(2)]
    whole, torn = store("a", rows, scores=scores), store("b", rows[1:], scores=scores)
    assert compare(whole, whole).differences["official"].value == 0
    with pytest.raises(DataError, match=r"its official is 0\.500000, but 1\.000000 by the 1 rows"):
        compare(whole, torn)
