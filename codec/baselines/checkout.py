"""Models of another repository or package: imported without leaving a trace, their weights read without pickled code."""

import importlib.util
import pickle
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from codec.entangle import CheckpointError


@contextmanager
def foreign_packages(folder: Path, *names: str, how_to_get: str, bare: bool = False) -> Iterator[None]:
    """Inside, `import NAME` finds the packages of `folder`; afterwards `sys.modules` is as it was.

    For repositories whose packages have names like `encoder` and `decoder`, which anything else may use too. `bare` leaves the
    packages' `__init__.py` out: one may import its trainer, and half the world with it. What is missing becomes a
    `CheckpointError` that ends with `how_to_get`.
    """

    def ours(module: str) -> bool:
        return module.split(".")[0] in names

    if absent := [name for name in names if not (folder / name).is_dir()]:
        raise CheckpointError(f"{folder} has no folder {absent[0]}/. {how_to_get}")
    before = {name: module for name, module in sys.modules.items() if ours(name)}
    for name in before:
        del sys.modules[name]
    try:
        packages = [_package(folder / name) for name in names]
        for package in packages if not bare else []:
            if package.__spec__.loader is not None and (folder / package.__name__ / "__init__.py").is_file():
                package.__spec__.loader.exec_module(package)
        yield
    except (ImportError, OSError) as error:  # OSError: a torchaudio that was built for another torch
        raise CheckpointError(f"{folder} cannot be imported: {type(error).__name__}: {error}. {how_to_get}") from error
    finally:
        for name in [name for name in sys.modules if ours(name)]:
            del sys.modules[name]
        sys.modules.update(before)


def _package(folder: Path) -> Any:
    spec = importlib.util.spec_from_file_location(
        folder.name, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[folder.name] = module
    return module


def existing_file(path: str | Path | None, option: str, how_to_get: str) -> Path:
    """The file that the user named for `option`. Raises `CheckpointError`."""
    if path is None:
        raise CheckpointError(f"{option}=FILE is missing. {how_to_get}")
    if not Path(path).is_file():
        raise CheckpointError(f"{option}={path} is not a file. {how_to_get}")
    return Path(path)


def existing_folder(path: str | Path | None, option: str, how_to_get: str) -> Path:
    """The folder that the user named for `option`. Raises `CheckpointError`."""
    if path is None:
        raise CheckpointError(f"{option}=FOLDER is missing. {how_to_get}")
    if not Path(path).is_dir():
        raise CheckpointError(f"{option}={path} is not a folder. {how_to_get}")
    return Path(path)


def read_weights(path: Path) -> dict[str, Any]:
    """Tensors of a `.safetensors` file, or of a PyTorch file that holds nothing but data. Raises `CheckpointError`."""
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return dict(load_file(path))
    try:
        weights: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} holds pickled objects beside its tensors, and unpickling them would run whatever code they name. In an "
            "environment where you trust the file, save its state_dict once with safetensors.torch.save_file and give that file "
            f"({str(error).splitlines()[0]})"
        ) from error
    return weights


def fill(model: Any, weights: dict[str, Any], path: Path) -> None:
    """Load `weights` strictly; a codebook without its initialisation is refused: such a model would make one up from the first clip."""
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise CheckpointError(f"{path} does not fit the model of its config: {error}") from error
    for name, value in model.state_dict().items():
        if name.rpartition(".")[2] == "inited" and not bool(value.all()):
            raise CheckpointError(f"{path}: codebook {name.rpartition('.')[0]} was never trained")
