"""Flags and YAML: precedence, types, clear refusals, quick help."""

import inspect
import resource
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from alm.arguments import parse_arguments, parse_with_trainer_arguments, run_main
from alm.data.example import DataError


@dataclass
class Light:
    model: str = field(metadata={"help": "the model"})
    files: list[Path] = field(default_factory=list, metadata={"help": "files"})
    steps: int = field(default=3, metadata={"help": "a number"})
    rate: float | None = field(default=0.5, metadata={"help": "a rate"})
    shuffle: bool = field(default=True, metadata={"help": "shuffle"})

    def __post_init__(self) -> None:
        if self.steps < 0:
            raise ValueError(f"--steps must be 0 or more, got {self.steps}")


@dataclass
class Heavy:
    output_dir: str = "out"
    steps: int = 100
    learning_rate: float = 1e-3
    warmup: float = 0.0
    bf16: bool | None = None
    extra: dict[str, Any] | str | None = None


def refusal(capsys: pytest.CaptureFixture[str], argv: list[str], heavy: bool = False) -> str:
    with pytest.raises(SystemExit) as exit_info:
        if heavy:
            parse_with_trainer_arguments(Light, argv, "d", lambda: Heavy)
        else:
            parse_arguments(Light, argv, "d")
    assert exit_info.value.code == 2
    return capsys.readouterr().err


def test_flags_types_and_defaults() -> None:
    args = parse_arguments(Light, ["--model", "m", "--files", "a", "b", "--no_shuffle", "--rate", "1e-3"], "d")
    assert args == Light("m", [Path("a"), Path("b")], 3, 1e-3, False)
    assert parse_arguments(Light, ["--model", "m", "--shuffle", "false"], "d").shuffle is False


def test_yaml_below_flags(tmp_path: Path) -> None:
    config = tmp_path / "c.yaml"
    config.write_text("model: from-file\nfiles: [x, y]\nsteps: 7\nrate: null\nshuffle: false\n")
    args = parse_arguments(Light, ["--config", str(config)], "d")
    assert args == Light("from-file", [Path("x"), Path("y")], 7, None, False)
    args = parse_arguments(Light, ["--steps", "9", f"--config={config}", "--files", "z", "--rate", "2"], "d")
    assert args == Light("from-file", [Path("z")], 9, 2.0, False)


def test_refusals_name_the_way_out(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert "--stepps (did you mean --steps?)" in refusal(capsys, ["--model", "m", "--stepps", "3"])
    assert "--model" in (message := refusal(capsys, ["--modle", "m"])) and "did you mean --model?" in message
    assert "--ste" in refusal(capsys, ["--model", "m", "--ste", "3"])  # no guessing of abbreviations
    assert "must be 0 or more, got -1" in refusal(capsys, ["--model", "m", "--steps", "-1"])
    assert "invalid int value: 'many'" in refusal(capsys, ["--model", "m", "--steps", "many"])
    config = tmp_path / "c.yaml"
    config.write_text("model: m\nstep: 3\n")
    message = refusal(capsys, ["--config", str(config)])
    assert "step (did you mean steps?)" in message and "'rate'" in message
    assert "No such file" in refusal(capsys, ["--config", str(tmp_path / "none.yaml")])
    config.write_text("- a\n")
    assert "name: value" in refusal(capsys, ["--config", str(config)])


def test_trainer_arguments_share_one_line(tmp_path: Path) -> None:
    config = tmp_path / "c.yaml"
    config.write_text("model: m\nlearning_rate: 1e-5\nwarmup: 0.1\nextra: {a: 1}\n")
    light, heavy = parse_with_trainer_arguments(
        Light, ["--config", str(config), "--warmup", "0.2", "--bf16", "false"], "d", lambda: Heavy, {"output_dir": "x"}
    )
    assert light == Light("m")
    # steps is in both: the light one's default counts; file below flags; our default below file
    assert heavy == Heavy("x", 3, 1e-5, 0.2, False, '{"a": 1}')
    light, heavy = parse_with_trainer_arguments(
        Light,
        ["--model", "m", "--steps", "8", "--output_dir", "y"],
        "d",
        lambda: Heavy,
        {"output_dir": "x", "steps": 5},
    )
    assert (light.steps, heavy.steps, heavy.output_dir) == (8, 8, "y")


def test_trainer_refusals_and_lazy_help(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    message = refusal(capsys, ["--model", "m", "--lerning_rate", "3", "--step", "3"], heavy=True)
    assert "did you mean --learning_rate?" in message and "did you mean --steps?" in message
    config = tmp_path / "c.yaml"
    config.write_text("model: m\nwarm_up: 3\n")
    message = refusal(capsys, ["--config", str(config)], heavy=True)
    assert "did you mean warmup?" in message and "'files'" in message and "'bf16'" in message

    def never() -> type:
        raise AssertionError("heavy import before help")

    with pytest.raises(SystemExit) as exit_info:
        parse_with_trainer_arguments(
            Light, ["--help"], "Says what.\n\n    python x.py --model m", never, {"warmup": 0.1}
        )
    out = capsys.readouterr().out
    assert exit_info.value.code == 0 and "    python x.py --model m" in out and "warmup=0.1" in out
    with pytest.raises(SystemExit):
        parse_with_trainer_arguments(Light, ["--model", "m", "--help_all"], "d", lambda: Heavy)
    out = capsys.readouterr().out
    assert out.count("--steps STEPS") == 1 and "--learning_rate" in out


def test_real_trainer_config() -> None:
    def config() -> type:
        from transformers import TrainingArguments

        return TrainingArguments

    argv = ["--model", "m", "--output_dir", "o", "--lr_scheduler_kwargs", '{"min_lr_rate": 0.1}', "--max_steps", "-1"]
    _, heavy = parse_with_trainer_arguments(Light, argv, "d", config, {"learning_rate": 2e-4})
    assert (heavy.learning_rate, heavy.max_steps, heavy.lr_scheduler_kwargs) == (2e-4, -1, {"min_lr_rate": 0.1})


def test_run_main(capsys: pytest.CaptureFixture[str]) -> None:
    def fail(error: BaseException) -> None:
        raise error

    with pytest.raises(SystemExit) as exit_info:
        run_main(lambda: fail(DataError("row 3 has no answer")))
    assert exit_info.value.code == 1 and capsys.readouterr().err == "error: row 3 has no answer\n"
    with pytest.raises(SystemExit) as exit_info:
        run_main(lambda: fail(KeyboardInterrupt()))
    assert exit_info.value.code == 130 and "run the same command again" in capsys.readouterr().err
    with pytest.raises(ValueError, match="a bug"):  # not ours: keeps its traceback
        run_main(lambda: fail(ValueError("a bug")))


def test_import_is_light() -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    code = "import sys, alm.arguments; assert not {'torch', 'transformers', 'trl', 'numpy'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1.0  # CPU-seconds: deaf to other load


def test_the_parser_is_transformers_own() -> None:
    from transformers import HfArgumentParser

    from alm import arguments

    assert Path(inspect.getfile(arguments.HfArgumentParser)) == Path(inspect.getfile(HfArgumentParser))
