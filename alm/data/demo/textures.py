"""Background textures: six classes of sound that go on through the whole clip."""

from collections.abc import Callable

import numpy as np

from alm.data.demo.effects import Draws, Wave, band_noise, decay, place, seconds, shaped_noise, times
from alm.data.demo.sounds import steady, tone


def rain(d: Draws, samples: int) -> Wave:
    """Bright hiss with many fine drops."""
    hiss = shaped_noise(d, samples, lambda f: np.sqrt(f / (f + d.uniform(2_500, 3_500))))
    n = seconds(0.01)
    drops = np.zeros(samples)
    for start in d.rng.integers(0, samples - n, size=samples // 400):
        drops[start : start + n] += d.rng.random() * hiss[:n] * np.linspace(1, 0, n) ** 2
    return hiss + 2.5 * drops


def wind(d: Draws, samples: int) -> Wave:
    """Low noise that howls: a resonance wanders slowly."""
    t = times(samples)
    low = band_noise(d, samples, 60, d.uniform(250, 350), 2)
    howl = band_noise(d, samples, d.uniform(380, 450), 620, 6)
    gust = 0.55 + 0.45 * np.sin(2 * np.pi * (d.uniform(0.4, 0.8) * t + d.rng.random()))
    return low * (0.5 + 0.5 * gust) + 1.2 * howl * gust


def engine(d: Draws, samples: int) -> Wave:
    """An idling motor: a sawtooth hum with a beating second cylinder."""
    base = d.uniform(48, 62)
    length = samples / 24_000
    hum = tone(steady(base, length), {h: 1 / h**0.7 for h in range(1, 20)})[:samples]
    beat = 1 + 0.5 * np.sin(2 * np.pi * d.uniform(8, 11) * times(samples))
    return hum * beat + 0.4 * band_noise(d, samples, 80, 500)


def fire(d: Draws, samples: int) -> Wave:
    """A soft roar with loud irregular crackles."""
    crackles = []
    for start in d.rng.random(int(samples / 24_000 * d.uniform(22, 32))) * samples / 24_000:
        n = seconds(0.012)
        crackles.append(
            (float(start), (0.4 + 2 * d.rng.random() ** 3) * band_noise(d, n, 1_500, 9_000) * decay(n, 0.02, 0.0005))
        )
    return 0.22 * band_noise(d, samples, 60, 250, 2) + 1.6 * place(samples, crackles)


def waves(d: Draws, samples: int) -> Wave:
    """Surf: a swell of pink noise that comes and goes."""
    swell = np.sin(np.pi * (d.uniform(0.75, 0.95) * times(samples) + d.rng.random())) ** 2
    return shaped_noise(d, samples, lambda f: (f + 60) ** -0.5 / (1 + (f / 4_000) ** 2)) * (0.06 + swell**1.5)


def crickets(d: Draws, samples: int) -> Wave:
    """Insects at night: a high tone in quick triple pulses."""
    t = times(samples)
    pulse = np.clip(np.sin(2 * np.pi * d.uniform(28, 34) * t), 0, None) * (((t * d.uniform(2.4, 3.0)) % 1) < 0.55)
    carrier = tone(steady(d.uniform(4_300, 4_900), samples / 24_000), {1: 1.0})[:samples]
    return carrier * pulse + 0.05 * band_noise(d, samples, 200, 3_000, 1)


TEXTURES: dict[str, Callable[[Draws, int], Wave]] = {
    "rain": rain,
    "wind": wind,
    "engine": engine,
    "fire": fire,
    "waves": waves,
    "crickets": crickets,
}
"""Label (one word, as answered) → a texture of any number of samples."""
