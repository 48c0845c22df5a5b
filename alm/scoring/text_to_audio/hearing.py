"""What models say of each sound, one row a sound: embeddings, logits, listeners' scores. What compares sounds is computed from rows."""

import base64
import hashlib
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from alm.scoring.item_log import ItemLog, Row
from alm.scoring.sound.base import Waveform
from alm.scoring.sound.sources import native_rate
from alm.scoring.text_to_audio.equipment import Ears
from codec.audio import read_audio, read_bytes, resample

SILENCE_RATE, SILENCE_SECONDS = 48_000, 10
Sound = tuple[Waveform, int]
"""A waveform `(S,)` and its sampling rate."""


class Listener:
    """Rows of sounds and captions; those of an interrupted run are taken over where the sound is the same."""

    def __init__(self, ears: Ears, log: ItemLog) -> None:
        self.ears, self.log = ears, log

    def file(self, kind: str, name: str, path: Path) -> Row:
        """Row of a file. Raises `AudioError`."""
        data = read_bytes(path)
        return self._row(f"{kind}/{name}", _sha(data), lambda: _decode(data, path))

    def noise(self, name: str, path: Path) -> Row:
        """Row of white noise as long and as loud as the sound of a file."""

        def make() -> Sound:
            waveform, rate = _decode(data, path)
            return noise_like(name, waveform), rate

        data = read_bytes(path)
        return self._row(f"noise/{name}", _sha(data), make)

    def silence(self) -> Row:
        """Row of ten seconds of zeros."""
        return self._row(
            "silence", "", lambda: (np.zeros(SILENCE_RATE * SILENCE_SECONDS, dtype=np.float32), SILENCE_RATE)
        )

    def text(self, caption: str) -> NDArray[np.float32] | None:
        """CLAP's embedding of a caption; None without a CLAP."""
        if self.ears.equipment.clap is None:
            return None
        row_id = f"text/{_sha(caption.encode())}"
        row = self.log.rows.get(row_id)
        if row is None:
            assert self.ears.clap is not None
            row = self._keep({"id": row_id, "clap": pack(self.ears.clap.text(caption))})
        return unpack(row["clap"])

    def _row(self, row_id: str, of: str, load: Callable[[], Sound]) -> Row:
        row = self.log.rows.get(row_id)
        if row is not None and row["of"] == of:
            return row
        return self._keep({"id": row_id, "of": of, **self._hear(*load())})

    def _hear(self, waveform: Waveform, rate: int) -> Row:
        ears = self.ears
        row: Row = {"seconds": len(waveform) / rate, "clap": None, "embedding": None, "logits": None}
        if ears.clap is not None:
            row["clap"] = pack(ears.clap.sound(resample(waveform, rate, ears.clap.sampling_rate)))
        if ears.classifier is not None:
            heard = ears.classifier.hear(resample(waveform, rate, ears.classifier.sampling_rate))
            row |= {"embedding": pack(heard.embedding), "logits": pack(heard.logits)}
        scores: dict[str, float | None] = {}
        for metric, measure in ears.metrics:
            values = measure(None, resample(waveform, rate, metric.sampling_rate))
            scores |= {name: None if math.isnan(value) else value for name, value in values.items()}
        return row | {"scores": scores}

    def _keep(self, row: Row) -> Row:
        self.log.append([row])
        return row


def noise_like(name: str, waveform: Waveform) -> Waveform:
    """White noise `(S,)` of the waveform's length and root mean square; `name` alone decides its draws."""
    generator = np.random.default_rng(int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]))
    noise = generator.standard_normal(len(waveform))
    level = np.sqrt(np.square(waveform, dtype=np.float64).mean() / np.square(noise).mean())
    scaled: Waveform = (noise * level).astype(np.float32)
    return scaled


def pack(vector: NDArray[np.float32]) -> str:
    """A vector's float32 bytes as text, so that nothing is rounded on its way through JSON."""
    return base64.b64encode(np.asarray(vector, dtype="<f4").tobytes()).decode()


def unpack(text: str) -> NDArray[np.float32]:
    """The vector of `pack`."""
    return np.frombuffer(base64.b64decode(text), dtype="<f4")


def _decode(data: bytes, path: Path) -> Sound:
    rate = native_rate(data, str(path))
    return read_audio(data, rate, str(path)), rate


def _sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
