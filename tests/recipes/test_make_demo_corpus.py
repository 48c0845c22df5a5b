"""The command that the reader types, in this process."""

import json
import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("espeakng_loader")

SCRIPT = Path(__file__).parents[2] / "recipes" / "make_demo_corpus.py"
SMALL = ("--train_clips", "30", "--test_clips", "30", "--workers", "1")


@pytest.fixture(scope="module")
def main() -> Callable[[list[str]], None]:
    return runpy.run_path(str(SCRIPT))["main"]


def test_dry_run_prints_the_plan_and_makes_nothing(
    main: Callable[[list[str]], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["--output", str(tmp_path / "corpus"), "--dry_run"])
    printed = capsys.readouterr().out
    assert "train: 3600 clips" in printed and "test: 330 clips" in printed and "keyword" in printed
    assert not list(tmp_path.iterdir())


def test_makes_a_corpus_and_reuses_it(
    main: Callable[[list[str]], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "runs" / "corpus"
    main(["--output", str(output), *SMALL])
    captured = capsys.readouterr()
    assert captured.out.startswith("made:") and "demo corpus" in captured.err
    assert json.loads((output / "manifest.json").read_text())["settings"]["train_clips"] == 30
    main(["--output", str(output), *SMALL])
    assert capsys.readouterr().out.startswith("already there:")


def test_an_unknown_flag_is_an_error(main: Callable[[list[str]], None], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["--clips", "3"])
    assert stopped.value.code == 2 and "clips" in capsys.readouterr().err


def test_other_settings_end_in_one_clear_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "corpus"
    output.mkdir()
    (output / "notes.txt").write_text("mine")
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as stopped:
        patch.setattr(sys, "argv", [str(SCRIPT), "--output", str(output), *SMALL])
        runpy.run_path(str(SCRIPT), run_name="__main__")
    message = capsys.readouterr().err.strip()
    assert stopped.value.code == 1 and "not a demo corpus" in message and "Traceback" not in message
