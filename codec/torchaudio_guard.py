"""Makes torchaudio importable beside a torch that its compiled part was not built for.

The package `vocos` (the extra `vocoder`) requires torchaudio, whose wheels on PyPI are linked to CUDA and pin no torch. Beside a
CPU build of torch, `import torchaudio` ends in an `OSError`, and with it every module of Transformers that finds torchaudio
installed: models, Trainer, feature extractors. torchaudio runs without its compiled part, a path that it has itself for builds
without one; all that `vocos` uses (mel filters, spectrogram, resampling) is plain torch.
"""

import importlib
import importlib.util
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any, NoReturn


def ensure_torchaudio() -> bool:
    """Import torchaudio, without its compiled part where that cannot be loaded; does nothing where it is not installed.

    Returns whether torchaudio had to go without. Call it before Transformers is imported; nothing else needs to be done.
    """
    if "torchaudio" not in sys.modules and importlib.util.find_spec("torchaudio") is None:
        return False
    try:
        importlib.import_module("torchaudio")
    except OSError:  # libraries of the other torch, or their symbols, are missing
        for name in [name for name in sys.modules if name.split(".")[0] == "torchaudio"]:
            del sys.modules[name]
        sys.modules["torchaudio._extension"] = _no_extension()
        importlib.import_module("torchaudio")
    return sys.modules["torchaudio._extension"].__spec__ is None


def _no_extension() -> ModuleType:
    """What `torchaudio._extension` offers the package's other modules, in a build without compiled parts."""
    module = ModuleType("torchaudio._extension")
    module._IS_TORCHAUDIO_EXT_AVAILABLE = False  # type: ignore[attr-defined]
    module._IS_ALIGN_AVAILABLE = False  # type: ignore[attr-defined]
    module._load_lib = lambda name: False  # type: ignore[attr-defined]
    module.fail_if_no_align = _unavailable  # type: ignore[attr-defined]
    return module


def _unavailable(function: Callable[..., Any]) -> Callable[..., NoReturn]:
    def fail(*_: Any, **__: Any) -> NoReturn:
        raise RuntimeError(
            f"torchaudio.{function.__name__} needs torchaudio's compiled part, which does not fit the installed torch"
        )

    return fail
