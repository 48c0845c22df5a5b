"""Six clips to caption."""

from pathlib import Path

import numpy as np
import pytest

from codec.audio import write_audio


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """Six clips of 0.3 to 0.8 s."""
    for n in range(6):
        samples = np.random.default_rng(n).uniform(-0.5, 0.5, 4_800 + 1_600 * n)
        write_audio(tmp_path / "audio" / f"{n}.wav", samples, 16_000)
    return tmp_path / "audio"
