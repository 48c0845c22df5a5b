"""Seeded draws that keep train and test apart, and the few effects that every synthesised clip shares.

All waveforms in this package are mono float `(S,)` at `SAMPLING_RATE`.
"""

import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

SAMPLING_RATE = 24_000
"""Hz, of every waveform inside the demo package (files of some data sets are resampled on writing)."""

Wave = NDArray[np.float64]
"""One mono waveform `(S,)`."""

CELLS = 10
TEST_CELLS = (2, 7)
"""Of `CELLS` equal cells of every synthesis parameter's range, those that only test clips use."""
TRAIN_CELLS = tuple(cell for cell in range(CELLS) if cell not in TEST_CELLS)


class Draws:
    """The random draws of one clip: a function of the seed and the clip's id alone, whoever renders it.

    `uniform` takes its value from cells of the range that belong to the clip's split: no synthesis parameter of a test clip
    lies in a cell that a training clip ever used.
    """

    def __init__(self, seed: int, name: str, split: str) -> None:
        self.rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
        self._cells = TEST_CELLS if split == "test" else TRAIN_CELLS

    def unit(self) -> float:
        """A value in [0, 1) from the split's cells."""
        return float((self._cells[self.rng.integers(len(self._cells))] + self.rng.random()) / CELLS)

    def uniform(self, low: float, high: float) -> float:
        """A synthesis parameter in [low, high), from the split's cells."""
        return low + (high - low) * self.unit()

    def noise(self, samples: int) -> Wave:
        """White Gaussian noise `(samples,)` of unit variance."""
        return self.rng.standard_normal(samples)


def seconds(duration: float) -> int:
    """Number of samples of `duration` seconds."""
    return round(duration * SAMPLING_RATE)


def times(samples: int) -> Wave:
    """Time of each sample in seconds, `(samples,)`."""
    return np.arange(samples) / SAMPLING_RATE


def shaped_noise(draws: Draws, samples: int, gain: Callable[[NDArray[Any]], NDArray[Any]]) -> Wave:
    """Gaussian noise of unit RMS whose magnitude spectrum follows `gain(frequencies in Hz)`."""
    n = -(-samples // 1024) * 1024  # lengths with large prime factors are slow to transform
    spectrum = np.fft.rfft(draws.noise(n)) * gain(np.fft.rfftfreq(n, 1 / SAMPLING_RATE))
    wave = np.fft.irfft(spectrum, n)[:samples]
    return wave / max(rms(wave), 1e-9)


def band_noise(draws: Draws, samples: int, low: float, high: float, order: int = 4) -> Wave:
    """Unit-RMS noise between `low` and `high` Hz with skirts of `6 × order` dB per octave."""
    return shaped_noise(
        draws, samples, lambda f: 1 / np.sqrt((1 + (low / (f + 1)) ** (2 * order)) * (1 + (f / high) ** (2 * order)))
    )


def decay(samples: int, time: float, attack: float = 0.002) -> Wave:
    """Envelope `(samples,)`: linear attack, then an exponential that loses 60 dB in `time` seconds."""
    t = times(samples)
    envelope = np.minimum(t / attack, 1.0) * 10 ** (-3 * t / time)
    return fade(envelope, 0.0, 0.005)


def fade(wave: Wave, start: float = 0.005, end: float = 0.005) -> Wave:
    """`wave` with raised-cosine ramps of `start` and `end` seconds."""
    out = wave.copy()
    for ramp, view in ((start, out), (end, out[::-1])):
        n = min(seconds(ramp), len(out))
        if n:
            view[:n] *= 0.5 - 0.5 * np.cos(np.pi * np.arange(n) / n)
    return out


def rms(wave: Wave) -> float:
    """Root mean square of `wave`."""
    return float(np.sqrt(np.mean(wave**2))) if len(wave) else 0.0


def active_rms(wave: Wave) -> float:
    """RMS over the 20-ms blocks within 30 dB of the loudest one: the level of the sound itself, not of its pauses."""
    block = seconds(0.02)
    if len(wave) < block:
        return rms(wave)
    power = np.mean(wave[: len(wave) // block * block].reshape(-1, block) ** 2, axis=1)
    return float(np.sqrt(np.mean(power[power >= 1e-3 * power.max()])))


def mix_at(signal: Wave, background: Wave, ratio: float) -> Wave:
    """`signal` over `background` `(S,)` at a signal-to-background ratio of `ratio` dB (level of the active signal)."""
    wanted = active_rms(signal) * 10 ** (-ratio / 20)
    return signal + background * (wanted / max(rms(background), 1e-9))


def place(samples: int, parts: list[tuple[float, Wave]]) -> Wave:
    """Sum of waveforms, each starting at its time in seconds, in a clip of `samples`; what sticks out is cut."""
    out = np.zeros(samples)
    for start, wave in parts:
        first = seconds(start)
        piece = wave[: max(samples - first, 0)]
        out[first : first + len(piece)] += piece
    return out


def reverberate(draws: Draws, wave: Wave, time: float, wet: float) -> Wave:
    """Add a room: convolution with noise that decays by 60 dB in `time` seconds, `wet` times the dry level; same length."""
    tail = draws.noise(seconds(time)) * decay(seconds(time), time)
    n = 1 << (len(wave) + len(tail) - 1).bit_length()
    room = np.fft.irfft(np.fft.rfft(wave, n) * np.fft.rfft(tail, n), n)[: len(wave)]
    return wave + room * (wet * rms(wave) / max(rms(room), 1e-9))


def set_level(wave: Wave, level: float, peak: float = 0.95) -> Wave:
    """Scale to `level` dB RMS over the active parts (0 dB = full scale), less where the peak would exceed `peak`."""
    scaled = wave * (10 ** (level / 20) / max(active_rms(wave), 1e-9))
    return scaled * min(1.0, peak / max(float(np.abs(scaled).max()), 1e-9))
