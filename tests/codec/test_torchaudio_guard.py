"""A torchaudio built for another torch, made of a few lines, in processes of their own."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

EXTENSION = """
_IS_TORCHAUDIO_EXT_AVAILABLE = True
fail_if_no_align = lambda function: function
if {broken}:
    raise OSError("Could not load this library: _torchaudio.abi3.so")
"""
PROGRAM = """
import sys
sys.path.insert(0, {folder!r})
from codec.torchaudio_guard import ensure_torchaudio
found = ensure_torchaudio()
assert found is ensure_torchaudio() is {broken}, found
import torchaudio
assert torchaudio.EXTENSION is not {broken}
try:
    assert torchaudio.align() == "aligned" and not {broken}
except RuntimeError as error:
    assert {broken} and "torchaudio.align needs torchaudio's compiled part" in str(error)
"""


@pytest.mark.parametrize("broken", [False, True])
def test_torchaudio_does_without_a_part_that_does_not_load(tmp_path: Path, broken: bool) -> None:
    package = tmp_path / "torchaudio"
    package.mkdir()
    (package / "_extension.py").write_text(EXTENSION.format(broken=broken))
    (package / "__init__.py").write_text(
        "from . import _extension\nfrom ._extension import _IS_TORCHAUDIO_EXT_AVAILABLE as EXTENSION\n"
        "@_extension.fail_if_no_align\ndef align():\n    return 'aligned'\n"
    )
    subprocess.run([sys.executable, "-c", PROGRAM.format(folder=str(tmp_path), broken=broken)], check=True)


def test_without_torchaudio_nothing_is_imported() -> None:
    program = (
        "import importlib.util, runpy, sys\n"
        "importlib.util.find_spec = lambda name: None\n"
        f"guard = runpy.run_path({str(ROOT / 'codec' / 'torchaudio_guard.py')!r})\n"
        "assert guard['ensure_torchaudio']() is False and not {'torch', 'torchaudio', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
