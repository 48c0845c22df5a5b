"""What a number depends on: digests of weights and code, versions and commit, and the key under which a run may go on."""

import hashlib
import importlib.metadata
import importlib.util
import platform
import shlex
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alm.vocabulary import digest

if TYPE_CHECKING:
    import torch

PACKAGES = ("entangle-alm", "torch", "transformers", "tokenizers", "numpy", "soundfile", "soxr")
CODE = (
    *("alm", "alm/chat", "alm/data", "alm/generation", "alm/scoring", "alm/scoring/sound", "alm/scoring/speech"),
    *("alm/scoring/systems", "alm/scoring/text_to_audio"),
    *("codec", "codec/baselines"),
)


def resume_key(**parts: Any) -> str:
    """16 hexadecimal digits over everything that decides an item's row, so that no other run's row is ever taken for it.

    By convention: `weights`, `vocabulary`, `data`, `prompt`, `decoding`, `code`. A harness that keys its cache by the request
    alone hands out another model's answers.
    """
    return digest({name: parts[name] for name in sorted(parts)})


def weights_digest(model: "torch.nn.Module") -> str:
    """16 hexadecimal digits of SHA-256 over names, types, shapes and bytes of all parameters, as they are in memory.

    Over the loaded model and not its files, so that a path, a Hub id and a merged adapter are told apart by what they compute.
    Takes about a second per gigabyte.
    """
    return _tensors_digest((name, parameter.detach()) for name, parameter in sorted(model.named_parameters()))


def stored_weights_digest(folder: Path, dtype: "torch.dtype") -> str:
    """`weights_digest` of the model that a plain checkpoint's folder holds, in this type, for engines that load it themselves."""
    from safetensors import safe_open

    from alm.checkpoint_files import HEAD, CheckpointFiles

    files = CheckpointFiles(folder)
    tied = {HEAD} if files.config.get("tie_word_embeddings") else set()

    def tensors() -> Iterator[tuple[str, "torch.Tensor"]]:
        for name in sorted(files.weights.keys() - tied):
            with safe_open(files.weights[name], "pt") as file:
                yield name, file.get_tensor(name).to(dtype)

    return _tensors_digest(tensors())


def _tensors_digest(tensors: "Iterable[tuple[str, torch.Tensor]]") -> str:
    import torch

    total = hashlib.sha256()
    for name, given in tensors:
        tensor = given.cpu().contiguous()
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        total.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()[:16]


def code_version() -> str:
    """16 hexadecimal digits over the source files that a row may depend on: uncommitted edits are another version, too.

    `codec`, and of `alm` what evaluation runs: working on a training module does not make a half-finished run start again.
    """
    total = hashlib.sha256()
    for path in sorted(path for folder in CODE for path in _folder(folder).glob("*.py")):
        total.update(path.name.encode() + path.read_bytes())
    return total.hexdigest()[:16]


def environment(command: Sequence[str]) -> dict[str, Any]:
    """Versions, commit (None outside a checkout; "+" after it for uncommitted changes) and the command line."""
    versions = {name: _version(name) for name in PACKAGES}
    return {
        "versions": {"python": platform.python_version(), **{name: v for name, v in versions.items() if v}},
        "code": code_version(),
        "commit": _commit(),
        "command": shlex.join(command),
    }


def _folder(name: str) -> Path:
    """Folder of a package or of one inside it. Finds without importing: scoring stored answers must not load torch."""
    package, *inside = name.split("/")
    spec = importlib.util.find_spec(package)
    locations = spec.submodule_search_locations if spec else None
    return Path(next(iter(locations or [])), *inside)


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    root = Path(__file__).parents[2]
    # an installed package may lie inside a stranger's checkout: the commit counts only where this very file is tracked
    if _git(root, "ls-files", "--error-unmatch", "alm/__init__.py") is None:
        return None
    commit, changes = _git(root, "rev-parse", "HEAD"), _git(root, "status", "--porcelain", "--untracked-files=no")
    return f"{commit.strip()}{'+' if changes else ''}" if commit else None


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    return done.stdout if done.returncode == 0 else None
