"""kill -9 of a real process that builds a token store, at moments nobody chose, and what is left when it is started again."""

import multiprocessing
import random
import runpy
import time
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import numpy as np
import pytest

from alm.data.tokens import TokenStore
from codec.audio import write_audio

BUILDER = """
import time
from pathlib import Path
import numpy as np
from alm.data.tokens_build import build_token_store

class SlowCodec:
    sampling_rate, frame_rate, num_codebooks, codebook_size, tokens_per_second = 24_000, 50.0, 1, 64, 50.0
    fingerprint = "slow"

    def encode(self, waveforms):
        time.sleep(0.01)
        with LOG.open("a") as log:
            log.write("x" * len(waveforms))
        return [np.arange(-(-len(w) // 480))[None] * len(w) % 64 for w in waveforms]

STARTED.set()
build_token_store(
    sorted(AUDIO.iterdir()), SlowCodec(), OUTPUT, frames_per_batch=20, flush_seconds=0.05, max_missing=0.1, progress=False
)
"""
# a server that has imported everything once and forks: starting Python anew for each kill would take seconds each
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["alm.data.tokens_build"])


def start(audio: Path, output: Path, log: Path) -> ForkServerProcess:
    script = audio.parent / "builder.py"
    script.write_text(BUILDER)
    started = CONTEXT.Event()
    arguments = {"AUDIO": audio, "OUTPUT": output, "LOG": log, "STARTED": started}
    process = CONTEXT.Process(target=runpy.run_path, args=(str(script), arguments))
    process.start()
    assert started.wait(120)
    return process


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def survives(tmp_path: Path, clips: int, kills: int, seed: int) -> None:
    """Kill `kills` times, each at a random moment of the time that a whole build takes; then compare with the whole build."""
    audio = tmp_path / "audio"
    for index in range(clips):
        samples = 480 * (1 + index % 9)
        write_audio(audio / f"{index}.wav", np.random.default_rng(index).uniform(-0.5, 0.5, samples), 24_000)
    (audio / "bad.wav").write_bytes(b"no audio")
    reference, output, log = tmp_path / "reference", tmp_path / "tokens", tmp_path / "log"
    process = start(audio, reference, tmp_path / "reference.log")
    begun = time.monotonic()
    process.join()
    duration = time.monotonic() - begun
    assert process.exitcode == 0

    rng, kept = random.Random(seed), 0
    for _ in range(kills):
        process = start(audio, output, log)
        time.sleep(rng.uniform(0, duration / 2))
        process.kill()  # SIGKILL
        process.join()
        stored = len(TokenStore.open(output)) if (output / "store.json").exists() else 0
        assert stored >= kept, "a clip that was stored is gone"
        kept = stored
    encoded_before = len(log.read_text()) if log.exists() else 0
    process = start(audio, output, log)
    process.join()
    assert process.exitcode == 0 and tree(output) == tree(reference)
    assert len(TokenStore.open(output)) == clips and TokenStore.open(output).verify() == []
    assert len(log.read_text()) - encoded_before == clips - kept, (
        "the last run encodes what was not stored, and nothing else"
    )


def test_two_kills_lose_and_double_nothing(tmp_path: Path) -> None:
    survives(tmp_path, clips=100, kills=2, seed=1)


@pytest.mark.slow
def test_many_kills_lose_and_double_nothing(tmp_path: Path) -> None:
    survives(tmp_path, clips=400, kills=25, seed=2)
