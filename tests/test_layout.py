"""The layout's laws: imports go down only, scripts shadow nothing, nothing of the machine is in a file, the wheel is whole."""

import ast
import re
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BELOW = {
    "codec": set(),
    "alm": {"codec"},
    "recipes": {"alm", "codec"},
    "eval": {"alm", "codec"},
    "benchmarks": {"alm", "codec"},
}
HOUSE = {*BELOW, "tests"}


def sources(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def imported(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add((node.module or "").split(".")[0])
    return found


@pytest.mark.parametrize("floor", BELOW)
def test_imports_go_down_only(floor: str) -> None:
    for path in sources(floor):
        own = {floor} if floor in ("alm", "codec") else set()
        assert imported(path) & HOUSE <= BELOW[floor] | own, path


def test_alm_knows_a_codec_only_through_its_contract() -> None:
    # audio files and the mel are the floor's tools; a codec's own classes are not
    allowed = {"base", "zoo", "audio", "mel", "data", "mixing"}  # data, mixing: the lists of clips that training reads
    for path in sources("alm"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("codec"):
                assert (node.module or "").partition(".")[2] in allowed, f"{path}: {node.module}"


def test_scripts_shadow_nothing() -> None:
    distributions = metadata.packages_distributions()
    taken = set(sys.stdlib_module_names) | set(distributions) | {"alm", "codec"}
    for folder in ("recipes", "eval"):
        assert not (ROOT / folder / "__init__.py").exists()
        for path in sources(folder):
            assert path.stem not in taken, f"{path} would replace the module {path.stem}"
    assert not list((ROOT / "tests").rglob("__init__.py"))


def test_scripts_do_nothing_on_import() -> None:
    for path in [*sources("recipes"), *sources("eval")]:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        allowed = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign, ast.If)
        *body, last = tree.body
        assert isinstance(body[0], ast.Expr), f"{path} has no docstring"
        assert all(isinstance(node, allowed) for node in body[1:]), path
        assert isinstance(last, ast.If), f"{path} does not end with its __main__ guard"
        assert "accelerate launch" in (ast.get_docstring(tree) or "") or "python " in (ast.get_docstring(tree) or ""), (
            path
        )


def test_nothing_of_one_machine_is_in_a_file() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split(
        "\n"
    )
    for name in filter(None, listed):
        path = ROOT / name
        assert path.stat().st_size < 1_000_000, f"{name} is over 1 MB"
        if path.suffix in (".py", ".md", ".toml", ".yaml", ".txt") or path.name in ("Makefile", "run"):
            text = path.read_text(encoding="utf-8")
            assert not re.search(r"(?<![\w.])/(work|root|home)/|(?<!\w)/tmp/[a-z]", text), (
                f"{name} names a path of a machine"
            )


def test_the_readmes_map_is_true() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for name in re.findall(r"(?:recipes|eval|docs|constraints)/[\w/]+\.(?:py|md|yaml|txt)", text):
        assert (ROOT / name).is_file(), f"README names {name}"
    for path in sources("codec"):
        if path.stem != "__init__":
            assert path.name in text, f"README's map lacks codec/{path.name}"
    for script in [*sources("recipes"), *sources("eval")]:
        assert script.name in text or script.name == "show_result.py", f"README lacks {script}"


@pytest.mark.slow
def test_the_wheel_is_whole(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    ours = {str(path.relative_to(ROOT)) for folder in ("alm", "codec") for path in sources(folder)}
    assert ours <= names
    assert not {name for name in names if name.startswith(("tests/", "recipes/", "eval/"))}
    check = f"import sys; sys.path.insert(0, {str(wheel)!r}); import alm.vocabulary; assert {wheel.name!r} in alm.vocabulary.__file__"
    subprocess.run([sys.executable, "-I", "-c", check], check=True, cwd=tmp_path)


@pytest.mark.parametrize(
    "script", [path for folder in ("recipes", "eval") for path in sources(folder)], ids=lambda path: path.stem
)
def test_help_loads_nothing_heavy(script: Path) -> None:
    # --help within two seconds: torch alone would take longer on a slow machine
    program = f"""
import runpy, sys
sys.argv = [{str(script)!r}, "--help"]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
except SystemExit as end:
    assert not end.code
assert not {{"torch", "datasets", "trl"}} & set(sys.modules), sorted(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--" in done.stdout
