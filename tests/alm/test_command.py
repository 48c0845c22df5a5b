"""The `alm` command hands on to its tools and reports their status."""

from importlib import metadata
from pathlib import Path

import pytest

from alm.__main__ import COMMANDS, main


def test_commands_are_there_and_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == main(["--help"]) == 0 and main(["dance"]) == 2
    out = capsys.readouterr().out
    for name in COMMANDS:
        assert f"  {name} " in out
        with pytest.raises(SystemExit) as end:
            main([name, "--help"])
        assert not end.value.code and "checkpoint" in capsys.readouterr().out.lower()


def test_status_is_the_tool_s(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", str(tmp_path)]) == 1
    assert "config.json is missing" in capsys.readouterr().out
    with pytest.raises(SystemExit) as end:  # a user's mistake is one line
        main(["serve", "--model", str(tmp_path / "none")])
    assert end.value.code == 1 and capsys.readouterr().err.startswith("error: ")


def test_the_entry_point_is_installed() -> None:
    (entry,) = [one for one in metadata.entry_points(group="console_scripts") if one.name == "alm"]
    assert entry.value == "alm.__main__:main"
