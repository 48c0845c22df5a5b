"""Serves a checkpoint with an engine's own OpenAI-compatible server, after holding it to its vocabulary contract:

    python -m alm.serving.launch --model CHECKPOINT --engine vllm [--port 8000] [--options="--max-model-len 8192"] [--dry_run]

A folder that breaks its contract, or whose codec is another, is not served. `--dry_run` checks too, and prints the command.
"""

import os
import shlex
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from alm.arguments import parse_arguments, run_main
from alm.data.example import DataError
from alm.vocabulary import ContractError


@dataclass
class LaunchArguments:
    """What is served how."""

    model: str = field(metadata={"help": "checkpoint (folder or Hub id)"})
    engine: str = field(default="transformers", metadata={"help": "transformers, vllm or llama.cpp"})
    host: str = field(default="127.0.0.1", metadata={"help": "address to listen at"})
    port: int = field(default=8000, metadata={"help": "port to listen at"})
    options: str = field(default="", metadata={"help": "further flags for the server, as one string"})
    gguf: str | None = field(default=None, metadata={"help": "llama.cpp: the file of alm.serving.export_gguf"})
    dry_run: bool = field(default=False, metadata={"help": "check, print the command and exit"})

    def __post_init__(self) -> None:
        if self.engine not in COMMANDS:
            raise ValueError(f"--engine {self.engine}: accepted are {', '.join(COMMANDS)}")
        if (self.engine == "llama.cpp") != (self.gguf is not None):
            raise ValueError("--gguf FILE belongs to --engine llama.cpp, and is needed there")


def check(args: LaunchArguments) -> Path:
    """The checkpoint's folder. Raises `ContractError` that lists every fault of folder, codec or GGUF file."""
    from alm.adapters import is_adapter
    from alm.checkpoint_files import CheckpointFiles, local_folder
    from alm.contract import require_no_faults
    from alm.doctor import codec_check, examine

    folder = local_folder(args.model)
    require_no_faults(examine(folder), args.model)
    if is_adapter(folder):
        raise ContractError(
            f"{args.model} is a LoRA adapter; engines serve whole models: load_checkpoint merges it, save_checkpoint writes the result"
        )
    if CheckpointFiles(folder).processor.get("codec_reference") is not None:
        require_no_faults(codec_check(folder).faults, args.model)
    if args.gguf is not None:
        from alm.serving.export_gguf import read_contract

        theirs, ours = read_contract(args.gguf), CheckpointFiles(folder).vocabulary
        if ours is None or theirs != ours:
            raise ContractError(
                f"{args.gguf} has vocabulary {theirs.hash}, {args.model} {ours and ours.hash}: write the file again with "
                "python -m alm.serving.export_gguf"
            )
    return folder


def _transformers(args: LaunchArguments, folder: Path) -> list[str]:
    return ["transformers", "serve", str(folder), "--host", args.host, "--port", str(args.port)]


def _vllm(args: LaunchArguments, folder: Path) -> list[str]:
    grammar = ["--logits-processors", "alm.serving.vllm_grammar:AudioReplies"]
    return ["vllm", "serve", str(folder), "--host", args.host, "--port", str(args.port), *grammar]


def _llama_cpp(args: LaunchArguments, folder: Path) -> list[str]:
    # --jinja: the template inside the file, not the nearest one that llama.cpp knows
    return ["llama-server", "--model", str(args.gguf), "--jinja", "--host", args.host, "--port", str(args.port)]


COMMANDS: dict[str, Callable[[LaunchArguments, Path], list[str]]] = {
    "transformers": _transformers,
    "vllm": _vllm,
    "llama.cpp": _llama_cpp,
}


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    args = parse_arguments(LaunchArguments, argv, description=__doc__)
    command = [*COMMANDS[args.engine](args, check(args)), *shlex.split(args.options)]
    print(shlex.join(command), flush=True)
    if args.dry_run:
        return
    program = shutil.which(command[0])
    if program is None:
        raise DataError(f"{command[0]} is not installed here; docs/serving.md says how to install each engine")
    os.execv(program, command)


if __name__ == "__main__":
    run_main(main)
