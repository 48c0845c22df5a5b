"""Evaluations on two processes of one launch: the files of one process, byte for byte; one that dies ends the other, and no row is lost."""

import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from codec.audio import write_audio

EVAL = Path(__file__).parents[2] / "eval"
CHOICES = [["a dog", "a cat", "a bell"], ["one", "two"], ["rain", "the sea", "a roof", "wind"]]
QUESTIONS, SENTENCES = 11, 5

pytestmark = pytest.mark.slow


class Inputs(NamedTuple):
    """Questions in MMAR's form with their clips, sentences in SEED-TTS's, captions in AudioCaps'."""

    questions: Path
    sentences: Path
    captions: Path


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    folder, generator, rows = tmp_path_factory.mktemp("inputs"), np.random.default_rng(0), []
    for n in range(QUESTIONS):
        write_audio(folder / "audio" / f"q{n}.wav", generator.normal(0, 0.1, 4_800 + 2_400 * (n % 4)), 24_000)
        choices = CHOICES[n % 3]
        row = {
            "id": f"q{n}",
            "audio_path": f"./audio/q{n}.wav",
            "question": "Which sound is heard?",
            "choices": choices,
        }
        rows.append(
            row
            | {
                "answer": choices[0],
                "modality": "sound",
                "category": "Layer",
                "sub-category": "Counting",
                "language": None,
            }
        )
    (folder / "audio" / "q6.wav").write_bytes((folder / "audio" / "q6.wav").read_bytes()[:60])  # its header can be read
    questions, sentences, captions = folder / "MMAR-meta.jsonl", folder / "meta.lst", folder / "test.csv"
    questions.write_text("".join(json.dumps(row) + "\n" for row in rows))
    sentences.write_text("".join(f"u{n}|||Good morning{', all' * n}.\n" for n in range(SENTENCES)))
    lines = [f"{n},v{n},0,{'a bell and ' * n}rain" for n in range(4)]
    captions.write_text("\n".join(["audiocap_id,youtube_id,start_time,caption", *lines]) + "\n")
    for n in range(4):
        write_audio(folder / "test" / f"Yv{n}.wav", generator.normal(0, 0.1, 8_000 + 1_600 * n), 16_000)
    return Inputs(questions, sentences, captions)


def mmar(checkpoint: Path, inputs: Inputs, output: Path, *more: str) -> list[str]:
    fixed = ["--model", str(checkpoint), "--data", str(inputs.questions), "--output", str(output), "--resume"]
    return [*fixed, "--max_new_tokens", "4", *more]


@pytest.fixture(scope="module")
def runs(
    checkpoint: Path, speaker: Path, inputs: Inputs, tiny_clap: Path, tiny_classifier: Path
) -> list[tuple[str, list[str]]]:
    """Outputs are relative, so that results that name their command can be compared."""
    answers = mmar(checkpoint, inputs, Path("mmar.json"), "--batch_size", "2", "--permutations", "cyclic")
    made = ["--model", str(speaker), "--max_seconds", "0.6", "--batch_size", "2"]
    ears = ["--clap", str(tiny_clap), "--classifier", str(tiny_classifier), "--metrics", "none"]
    speech = ["--meta", str(inputs.sentences), "--language", "en", "--metrics", "utmos", "--output", "speech.json"]
    sounds = ["--data", str(inputs.captions), "--output", "sounds.json", *ears]
    return [
        (str(EVAL / "mmar.py"), answers),
        (str(EVAL / "mmar.py"), [*answers, "--dry_run"]),
        (str(EVAL / "seed_tts.py"), [*speech, *made]),
        (str(EVAL / "text_to_audio.py"), [*sounds, *made]),
    ]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_two_processes_leave_the_files_of_one(
    runs: list[tuple[str, list[str]]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone, launched = tmp_path / "alone", tmp_path / "launched"
    alone.mkdir()
    launched.mkdir()
    monkeypatch.chdir(alone)
    for script, argv in runs:
        runpy.run_path(script)["main"](argv)

    wrong = (runs[0][0], [*runs[0][1], "--device", "cuda:0"])
    (tmp_path / "runs.json").write_text(json.dumps([*runs, wrong]))
    command = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    command += ["--mixed_precision", "no", "--dynamo_backend", "no", "--num_machines", "1", "--main_process_port", "0"]
    command += [str(Path(__file__).with_name("several_evaluations.py")), str(tmp_path / "runs.json")]
    done = subprocess.run(
        command,
        cwd=launched,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert done.stdout.count("result: ") == 3 and done.stdout.count("clips found") == 1  # one process prints
    assert done.stdout.count("refused: --device cuda:0 would put all processes") == 2

    one, two = contents(alone), contents(launched)
    assert one.keys() == two.keys() and len([name for name in one if name.endswith(".wav")]) == SENTENCES + 4
    heard = {
        name: sorted(files.pop("sounds.sounds.jsonl").splitlines()) for name, files in (("one", one), ("two", two))
    }
    assert heard["one"] == heard["two"]
    for name in one:
        assert one[name] == two[name], name
    assert json.loads(one["mmar.json"])["counts"]["missing"] == 1


def start(index: int, port: int, argv: list[str], folder: Path) -> subprocess.Popen[str]:
    """One of two processes as a launcher would start it, without a launcher that would end the other."""
    told = {"RANK": index, "LOCAL_RANK": index, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "MASTER_PORT": port}
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1"}
    environment |= {name: str(value) for name, value in told.items()}
    command = [sys.executable, str(EVAL / "mmar.py"), *argv]
    return subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True)


def test_a_process_that_dies_ends_the_other_and_no_row_is_lost(
    checkpoint: Path, inputs: Inputs, tmp_path: Path, capsys: Any
) -> None:
    argv = mmar(checkpoint, inputs, tmp_path / "r.json", "--permutations", "cyclic", "--batch_size", "1")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    main, other = (start(index, port, argv, tmp_path) for index in (0, 1))
    part = tmp_path / "r.items.jsonl.part1"
    while other.poll() is None and not (part.exists() and part.read_bytes().count(b"\n")):
        time.sleep(0.002)
    other.send_signal(signal.SIGKILL)
    assert other.wait() == -signal.SIGKILL
    _, said = main.communicate(timeout=120)
    assert main.returncode == 1, said
    assert "error: process 0 of 2 has lost another" in said and "--resume" in said and "Traceback" not in said
    assert not (tmp_path / "r.json").exists()
    with part.open("ab") as file:
        file.write(b'{"id": "torn')

    # any number of processes goes on from the rows of both
    files = (tmp_path / "r.items.jsonl", part)
    kept = {json.loads(line)["id"] for path in files for line in path.read_bytes().split(b"\n")[:-1]}
    run = runpy.run_path(str(EVAL / "mmar.py"))["main"]
    run(argv)
    assert f"{len(kept - {'q6'})} rows taken over" in capsys.readouterr().err and not part.exists()
    run(mmar(checkpoint, inputs, tmp_path / "whole" / "r.json", "--permutations", "cyclic", "--batch_size", "1"))
    rows = [sorted((folder / "r.items.jsonl").read_bytes().splitlines()) for folder in (tmp_path, tmp_path / "whole")]
    assert rows[0] == rows[1]
    one, two = (json.loads((folder / "r.json").read_text()) for folder in (tmp_path, tmp_path / "whole"))
    assert one["manifest"].pop("command") != two["manifest"].pop("command") and one == two
