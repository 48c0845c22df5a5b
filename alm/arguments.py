"""Command lines of the scripts: a dataclass of arguments, filled from flags and a YAML file.

The parser is Transformers' `HfArgumentParser`; everything heavier stays lazy, so that `--help` appears at once.
"""

import argparse
import dataclasses
import difflib
import importlib.util
import json
import logging
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import yaml

Arguments = TypeVar("Arguments")


def option(default: Any, text: str) -> Any:
    """A field of a dataclass of arguments, with its help."""
    return dataclasses.field(default=default, metadata={"help": text})


def _parser_class() -> Any:
    """`HfArgumentParser`, without the second that `import transformers` takes: its module needs nothing else of the package."""
    package = importlib.util.find_spec("transformers")  # finds without importing
    file = Path(package.origin).with_name("hf_argparser.py") if package and package.origin else None
    if "transformers" not in sys.modules and file is not None and file.is_file():
        spec = importlib.util.spec_from_file_location("_hf_argparser", file)
        if spec is not None and spec.loader is not None:
            module = importlib.util.module_from_spec(spec)
            try:
                spec.loader.exec_module(module)
                return module.HfArgumentParser
            except ImportError:  # a version whose module does need the package
                pass
    from transformers import HfArgumentParser

    return HfArgumentParser


HfArgumentParser: Any = _parser_class()

OTHER_FLAGS = (
    "Every flag of the trainer's configuration (trl.SFTConfig or transformers.TrainingArguments) is accepted too; "
    "--help_all lists them."
)


def parse_arguments(cls: type[Arguments], argv: list[str] | None = None, description: str | None = None) -> Arguments:
    """Fill the dataclass `cls` from `argv` (default: the process's) and from `--config FILE.yaml`; flags override the file.

    `--help`, an unknown flag or key, or a `ValueError` of the dataclass's own checks ends the process as argparse does
    (exit code 0 for help, 2 for errors, message on stderr).
    """
    argv = sys.argv[1:] if argv is None else argv
    parser = _parser(cls, description, argv)
    flags, file = _with_config(parser, argv)
    _apply_file(file, parser)
    namespace, unknown = parser.parse_known_args([*_as_flags(file), *flags])
    if unknown:
        _reject(parser, unknown, _options(parser))
    return _build(cls, namespace, parser)


def parse_with_trainer_arguments(
    cls: type[Arguments],
    argv: list[str] | None,
    description: str | None,
    trainer_config: Callable[[], type],
    defaults: dict[str, Any] | None = None,
) -> tuple[Arguments, Any]:
    """Fill the light dataclass `cls` and the trainer's heavy one from one command line and one `--config` file.

    `trainer_config` imports and returns the heavy dataclass (`trl.SFTConfig`, `transformers.TrainingArguments`); it is called
    only after `--help` and the errors of `cls` are done with. `defaults` override the heavy dataclass's own defaults. A field
    that both have is parsed once, documented by `cls`, and its value handed to both.
    """
    argv = sys.argv[1:] if argv is None else argv
    own_names = {field.name for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    parser = _parser(cls, description, argv, epilog=_epilog(defaults or {}))
    parser.add_argument("--help_all", action="store_true", help="list the trainer's flags as well and exit")
    flags, file = _with_config(parser, argv)
    if "--help_all" in flags:
        parser.print_help()
        heavy = _TrainerParser(_imported(trainer_config), dict.fromkeys(own_names), defaults or {})
        print("\nflags of the trainer\n" + heavy.format_help().partition("options:")[2])
        sys.exit(0)
    own_file = {key: value for key, value in file.items() if key in own_names}
    _apply_file(own_file, parser)
    namespace, rest = parser.parse_known_args([*_as_flags(own_file), *flags])
    own = _build(cls, namespace, parser)

    trainer_cls = _imported(trainer_config)
    heavy_names = {field.name for field in dataclasses.fields(trainer_cls) if field.init}
    shared = {name: getattr(own, name) for name in own_names & heavy_names}
    heavy = _TrainerParser(trainer_cls, shared, defaults or {})
    heavy_file = {key: value for key, value in file.items() if key not in own_names}
    _apply_file(heavy_file, heavy, also=parser)
    heavy_namespace, unknown = heavy.parse_known_args([*_as_flags(heavy_file), *rest])
    if unknown:
        _reject(parser, unknown, [*_options(parser), *_options(heavy)])
    return own, _build(trainer_cls, heavy_namespace, parser)


def _imported(trainer_config: Callable[[], type]) -> type:
    importlib.import_module("codec")  # makes sure that Transformers can be imported (`codec.torchaudio_guard`)
    return trainer_config()


class ConfigFileError(ValueError):
    """A YAML file of numbers that is not there or not a mapping."""


def read_numbers(path: str | Path) -> dict[str, Any]:
    """Numbers of a model's configuration from a YAML file. Raises `ConfigFileError`."""
    try:
        numbers = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise ConfigFileError(f"{path} cannot be read as a YAML file of numbers: {error}") from error
    if not isinstance(numbers, dict):
        raise ConfigFileError(
            f"{path} holds no mapping of names to numbers; recipes/configs/tiny/codec.yaml shows the form"
        )
    return numbers


def require_output(output: str, *inputs: str | None) -> None:
    """Raise `ValueError` for an `--output` that is a folder, or one of the files that the run reads: it would replace it."""
    path = Path(output)
    if path.is_dir():
        raise ValueError(f"--output {output} is a folder; give the name of a file in it")
    if any(given is not None and path.resolve() == Path(given).resolve() for given in inputs):
        raise ValueError(f"--output {output} would replace what the run reads; give another file")


def beside(output: str, ending: str) -> Path:
    """A file or folder that belongs to the result file `output`: its name with another ending."""
    path = Path(output)  # not with_suffix: of "qwen3-0.6b" it would leave "qwen3-0"
    return path.with_name(path.name.removesuffix(".json") + ending)


def run_main(main: Callable[[], None]) -> None:
    """Run a script's `main`; turn a user's mistake into one line on stderr and exit code 1.

    A user's mistake is a `ValueError` subclass of our own packages (`codec.audio.AudioError`, `alm.data.example.DataError`,
    `alm.vocabulary.ContractError`, …). Ctrl-C exits with 130, a closed pipe (`| head`) with 141. Anything else is a bug and keeps its
    traceback.
    """
    # bitsandbytes, which peft imports, says at each start that a kernel for quantised inference on CPUs is not there
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
    try:
        main()
        sys.stdout.flush()
        _leave_processes()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left would be flushed at the end
        sys.exit(141)
    except KeyboardInterrupt:
        print("interrupted; run the same command again to go on", file=sys.stderr)
        sys.exit(130)
    except ValueError as error:
        # by package and not by a list: the class can only have been raised by code that was imported anyway
        if type(error).__module__.split(".")[0] not in ("alm", "codec"):
            raise
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)


def _leave_processes() -> None:
    """Leave the group of a launch's processes: threads of gloo that outlive it abort a process that is at its end (seen under ZeRO-3)."""
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Keeps the docstring's lines, shows each flag once, says what is required and no `(default: None)`."""

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if not action.option_strings:
            return super()._format_action_invocation(action)
        flag = action.option_strings[-1 if action.dest == "help" else 0]
        if action.nargs == 0:
            return flag
        return f"{flag} {'[BOOL]' if action.const is True else self._format_args(action, action.dest.upper())}"

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.required:
            return f"{action.help or ''} (required)"
        if action.nargs == 0 or action.default in (None, argparse.SUPPRESS, "") or action.default == []:
            return action.help
        return super()._get_help_string(action)


class _Parser(HfArgumentParser):
    """Names the probable slip where argparse would only say that a required flag is missing."""

    given: Sequence[str] = ()

    def error(self, message: str) -> NoReturn:
        if message.startswith("the following arguments are required"):
            options = _options(self)
            slips = [word for word in self.given if word.startswith("--") and word.split("=")[0] not in options]
            hints = [hint for hint in (_with_hints([word], options) for word in slips) if "(" in hint]
            message = f"{message.replace('/--', ' or --')}{'; unknown: ' if hints else ''}{', '.join(hints)}"
        super().error(message)
        raise SystemExit(2)  # not reached; argparse is untyped here


def _parser(cls: type, description: str | None, argv: Sequence[str], epilog: str | None = None) -> _Parser:
    parser = _Parser(cls, description=description, epilog=epilog, formatter_class=_HelpFormatter, allow_abbrev=False)
    parser.given = argv
    parser.usage = f"{parser.prog} [--config FILE.yaml] [--FLAG VALUE ...]"
    parser.add_argument("--config", help="YAML file of these arguments (underscored names); flags override it")
    for action in parser._actions:
        if action.option_strings[0] == f"--no_{action.dest}":
            action.help = f"the same as --{action.dest} false"
    return parser


class _TrainerParser(HfArgumentParser):
    """The heavy dataclass without the fields that the light one has parsed."""

    def __init__(self, cls: type, shared: dict[str, Any], defaults: dict[str, Any]) -> None:
        self._shared = shared
        super().__init__(cls, formatter_class=_HelpFormatter, allow_abbrev=False, add_help=False)
        self.set_defaults(**{**defaults, **shared})

    def _parse_dataclass_field(self, parser: argparse.ArgumentParser, field: dataclasses.Field[Any]) -> None:
        if field.name not in self._shared:
            HfArgumentParser._parse_dataclass_field(parser, field)


def _with_config(parser: argparse.ArgumentParser, argv: list[str]) -> tuple[list[str], dict[str, Any]]:
    """Split off `--config FILE` and read it."""
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False, usage=argparse.SUPPRESS)
    finder.add_argument("--config")
    found, flags = finder.parse_known_args(argv)
    if found.config is None:
        return flags, {}
    try:
        data = yaml.safe_load(Path(found.config).read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        parser.error(f"--config {found.config}: {error}")
    if not isinstance(data, dict | None):
        parser.error(f"--config {found.config}: expected `name: value` lines, got {type(data).__name__}")
    return flags, {str(key): value for key, value in (data or {}).items()}


def _apply_file(
    file: dict[str, Any], parser: argparse.ArgumentParser, also: argparse.ArgumentParser | None = None
) -> None:
    """Check the file's names; set the values that no flag can express (null, empty list)."""
    names = {action.dest for action in parser._actions if action.option_strings} - {"help", "help_all", "config"}
    unknown = sorted(file.keys() - names)
    if unknown:
        accepted = names | (
            {action.dest for action in also._actions} - {"help", "help_all", "config"} if also else set()
        )
        (also or parser).error(
            f"unknown key in --config: {_with_hints(unknown, accepted)}. Accepted: {sorted(accepted)}"
        )
    parser.set_defaults(**{key: value for key, value in file.items() if value is None or value == []})


def _as_flags(file: dict[str, Any]) -> list[str]:
    """The file as flags in front of the real ones: one set of types and checks, and the last flag wins."""
    flags: list[str] = []
    for key, value in file.items():
        if value is None or value == []:
            continue
        if isinstance(value, list):
            flags += [f"--{key}", *map(str, value)]
        else:
            flags.append(f"--{key}={json.dumps(value) if isinstance(value, dict) else value}")
    return flags


def _build(cls: type[Arguments], namespace: argparse.Namespace, parser: argparse.ArgumentParser) -> Arguments:
    fields = [field.name for field in dataclasses.fields(cls) if field.init]  # type: ignore[arg-type]
    try:
        return cls(**{name: getattr(namespace, name) for name in fields})
    except ValueError as error:
        parser.error(str(error))


def _options(parser: argparse.ArgumentParser) -> list[str]:
    return [option for action in parser._actions for option in action.option_strings]


def _reject(parser: argparse.ArgumentParser, unknown: list[str], options: list[str]) -> NoReturn:
    parser.error(f"unknown argument: {_with_hints(unknown, options)}")


def _with_hints(unknown: Iterable[str], known: Iterable[str]) -> str:
    known, texts = list(known), []
    for word in unknown:
        # HfArgumentParser offers --a_b and --a-b: suggest the first
        close = difflib.get_close_matches(word.split("=")[0].replace("-", "_"), _underscored(known), n=2, cutoff=0.7)
        texts.append(
            f"{word} (did you mean {' or '.join(_underscored(known)[name] for name in close)}?)" if close else word
        )
    return ", ".join(texts)


def _underscored(known: list[str]) -> dict[str, str]:
    names: dict[str, str] = {}
    for name in known:
        names.setdefault(name.replace("-", "_"), name)
    return names


def _epilog(defaults: dict[str, Any]) -> str:
    shown = ", ".join(f"{name}={value}" for name, value in defaults.items())
    return OTHER_FLAGS + (f" Defaults of this script: {shown}." if shown else "")
