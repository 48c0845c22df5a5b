"""Plan, render in parallel, write: the whole demo corpus, complete or not at all."""

import json
import os
import platform
import shutil
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import soundfile
import soxr
from tqdm import tqdm

from alm.data.demo import formats
from alm.data.demo.effects import SAMPLING_RATE, TEST_CELLS, TRAIN_CELLS
from alm.data.demo.questions import KINDS, Question, questions_of
from alm.data.demo.render import render
from alm.data.demo.scenes import FORMS, Scene, plan
from alm.data.demo.speech import espeak_paths, espeak_version
from alm.data.example import DataError

MANIFEST = "manifest.json"
VERSION = 7
"""Of the corpus's contents: raised whenever the same settings would give other files."""
LICENCE = (
    "Synthesised on this machine: no recordings of anyone, nothing downloaded. The speech is output of espeak-ng (GPL-3.0-or-later, "
    "which covers the program and its data, not what it says). Texts, sounds and music are made by this project (Apache-2.0)."
)
_CHUNK = 24  # scenes per task of the pool: small enough for a smooth progress bar


@dataclass(frozen=True)
class Settings:
    """What decides every byte of the corpus."""

    train_clips: int = 3_600
    test_clips: int = 330
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("train_clips", 30), ("test_clips", 30)):
            if getattr(self, name) < least:
                raise DataError(
                    f"{name} is {getattr(self, name)}, at least {least} are needed for every form of clip to occur"
                )
        if self.seed < 0:
            raise DataError(f"seed is {self.seed}, it must not be negative")


class Plan(NamedTuple):
    """Scenes and questions of both splits."""

    train: list[Scene]
    train_questions: list[Question]
    test: list[Scene]
    test_questions: list[Question]


class Built(NamedTuple):
    """A finished corpus: its manifest, and whether it was there already."""

    manifest: dict[str, Any]
    reused: bool


def make_plan(settings: Settings) -> Plan:
    """Everything but the sound: a function of the settings."""
    train = plan("train", settings.train_clips, settings.seed)
    test = plan("test", settings.test_clips, settings.seed)
    return Plan(train, questions_of(train, settings.seed), test, questions_of(test, settings.seed))


def build(output: Path, settings: Settings, workers: int = 2, overwrite: bool = False) -> Built:
    """Make the corpus in the folder `output`, or return at once where it is there with the same settings.

    The files appear under their final name only when all are written. Raises `DataError` where `output` holds a corpus of other
    settings (unless `overwrite`) or anything else, or where espeak-ng is missing.
    """
    found = _existing(output, settings, overwrite)
    if found is not None:
        return Built(found, reused=True)
    espeak_paths()  # missing package: say so before any work
    output.parent.mkdir(parents=True, exist_ok=True)
    root = Path(tempfile.mkdtemp(prefix=f".{output.name}.partial-", dir=output.parent))
    try:
        manifest = _write(root, settings, workers)
        root.chmod(0o755)  # mkdtemp's folders are private
        if output.exists():
            old = Path(tempfile.mkdtemp(prefix=f".{output.name}.old-", dir=output.parent))
            output.rename(old / output.name)
            root.rename(output)
            shutil.rmtree(old)
        else:
            root.rename(output)
    finally:
        shutil.rmtree(root, ignore_errors=True)
    return Built(manifest, reused=False)


def _existing(output: Path, settings: Settings, overwrite: bool) -> dict[str, Any] | None:
    """The manifest of a finished corpus with the same settings, or None where `output` may be written."""
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return None
    path = output / MANIFEST
    if not path.is_file():
        raise DataError(f"{output} exists and is not a demo corpus (it has no {MANIFEST}): choose another --output")
    manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    wanted = _identity(settings)
    if all(manifest.get(key) == value for key, value in wanted.items()):
        return manifest
    if overwrite and "demo_corpus" in manifest:
        return None
    differences = ", ".join(f"{key} {manifest.get(key)} there, {value} wanted" for key, value in wanted.items())
    raise DataError(
        f"{output} holds a corpus of other settings ({differences}): choose another --output, or pass --overwrite"
    )


def _identity(settings: Settings) -> dict[str, Any]:
    return {"demo_corpus": VERSION, "settings": asdict(settings)}


def _write(root: Path, settings: Settings, workers: int) -> dict[str, Any]:
    plan_ = make_plan(settings)
    scenes = [*plan_.train, *plan_.test]
    questions: dict[str, list[Question]] = defaultdict(list)
    for question in (*plan_.train_questions, *plan_.test_questions):
        questions[question.scene.id].append(question)
    files = {scene.id: formats.files_of(scene, questions[scene.id]) for scene in scenes}
    for folder in {Path(name).parent for f in files.values() for name, _ in (*f.written, *f.links)}:
        (root / folder).mkdir(parents=True, exist_ok=True)
    seconds = dict(_render_all([_Task(scene, files[scene.id], root, settings.seed) for scene in scenes], workers))
    for clip in files.values():
        for name, source in clip.links:
            _link(root / source, root / name)
    rows = formats.write_training(root, plan_.train, plan_.train_questions, settings.seed)
    rows["mmar"] = formats.write_test(root, plan_.test_questions, seconds)
    rows |= formats.write_other_tests(root, plan_.test, plan_.test_questions)
    manifest = {**_identity(settings), **summary(plan_), "rows": rows, **_seconds(scenes, seconds), **_versions()}
    (root / MANIFEST).write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return manifest


class _Task(NamedTuple):
    scene: Scene
    files: formats.Files
    root: Path
    seed: int


def _render_all(tasks: list[_Task], workers: int) -> Iterator[tuple[str, float]]:
    """Render and write every clip; yields scene ids with lengths in seconds, in order."""
    chunks = [tasks[i : i + _CHUNK] for i in range(0, len(tasks), _CHUNK)]
    with tqdm(total=len(tasks), desc="demo corpus", unit="clip", file=sys.stderr) as bar:
        if workers <= 1:
            for chunk in chunks:
                yield from _render_chunk(chunk)
                bar.update(len(chunk))
            return
        # spawned, not forked: the caller may have threads (torch), and the same happens on every system
        pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"))
        try:
            for done in pool.map(_render_chunk, chunks):
                yield from done
                bar.update(len(done))
        finally:
            pool.shutdown(cancel_futures=True)


def _render_chunk(tasks: list[_Task]) -> list[tuple[str, float]]:
    return [(task.scene.id, _render_one(task)) for task in tasks]


def _render_one(task: _Task) -> float:
    wave = render(task.scene, task.seed)
    for name, rate in task.files.written:
        resampled = wave if rate == SAMPLING_RATE else soxr.resample(wave, SAMPLING_RATE, rate)
        soundfile.write(task.root / name, np.clip(resampled, -1, 1), rate, subtype="PCM_16")
    return len(wave) / SAMPLING_RATE


def _link(source: Path, name: Path) -> None:
    """A second name for a file; a copy on file systems that have no hard links."""
    try:
        os.link(source, name)
    except OSError:
        shutil.copyfile(source, name)


def summary(plan_: Plan) -> dict[str, Any]:
    """Counts of clips by split and form, and of questions by split and kind."""
    clips, kinds = {}, {}
    for split, scenes, questions in (
        ("train", plan_.train, plan_.train_questions),
        ("test", plan_.test, plan_.test_questions),
    ):
        forms, asked = Counter(scene.form for scene in scenes), Counter(question.kind for question in questions)
        clips[split] = {name: forms[name] for name in FORMS}
        kinds[split] = {name: asked[name] for name in KINDS}
    return {"clips": clips, "questions": kinds, "hard_kinds": [name for name, kind in KINDS.items() if kind.hard]}


def _seconds(scenes: list[Scene], seconds: dict[str, float]) -> dict[str, Any]:
    total: dict[str, Counter[str]] = {"train": Counter(), "test": Counter()}
    for scene in scenes:
        total[scene.split][scene.domain] += seconds[scene.id]  # type: ignore[assignment]
    return {
        "seconds": {split: {domain: round(s, 2) for domain, s in domains.items()} for split, domains in total.items()}
    }


def _versions() -> dict[str, Any]:
    packages = {name: version(name) for name in ("espeakng-loader", "numpy", "soundfile", "soxr")}
    versions = {"python": platform.python_version(), "espeak-ng": espeak_version(), **packages}
    cells = {"train": list(TRAIN_CELLS), "test": list(TEST_CELLS)}
    return {"synthesis_parameter_cells": cells, "versions": versions, "licence": LICENCE}
