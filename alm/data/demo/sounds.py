"""Sound events: ten classes, each a function of the clip's draws.

An event is one natural occurrence (a burst of knocks, a ring); a unit is the smallest part that can be counted (one knock).
"""

from collections.abc import Callable, Mapping

import numpy as np

from alm.data.demo.effects import SAMPLING_RATE, Draws, Wave, band_noise, decay, fade, place, seconds, times


def tone(frequency: Wave, partials: Mapping[int, float] | Mapping[float, float]) -> Wave:
    """Sum of partials `{multiple: amplitude}` of a fundamental that moves as `frequency` `(S,)` in Hz."""
    phase = 2 * np.pi * np.cumsum(frequency) / SAMPLING_RATE
    wave = np.zeros(len(frequency))
    for multiple, amplitude in partials.items():
        wave += amplitude * np.sin(multiple * phase)
    return wave


def steady(frequency: float, duration: float) -> Wave:
    """A constant frequency track."""
    return np.full(seconds(duration), frequency)


def doorbell(d: Draws) -> Wave:
    """Two struck metal bars, the second a major third lower ("ding dong")."""
    high = d.uniform(620, 720)
    bars = [tone(steady(f, 0.7), {1: 1, 2.76: 0.35, 5.4: 0.12}) * decay(seconds(0.7), 0.9) for f in (high, high * 0.8)]
    return place(seconds(1.15), [(0.0, bars[0]), (0.42, bars[1])])


def siren(d: Draws) -> Wave:
    """A wail between two pitches."""
    length, rate = d.uniform(0.95, 1.2), d.uniform(2.2, 3.2)
    swing = 0.5 - 0.5 * np.cos(2 * np.pi * rate * times(seconds(length)))
    return fade(tone(d.uniform(600, 700) + 650 * swing, {1: 1, 2: 0.5, 3: 0.35, 4: 0.15}), 0.03, 0.03)


def bark(d: Draws) -> Wave:
    """One dog's bark: a hoarse harmonic burst through an opening mouth."""
    n = seconds(d.uniform(0.17, 0.22))
    arch = np.sin(np.pi * np.arange(n) / n)
    voice = tone(d.uniform(260, 340) * (0.8 + 0.5 * arch), {h: 1 / (1 + ((h - 3) / 2) ** 2) for h in range(1, 11)})
    return (voice + 1.2 * band_noise(d, n, 600, 1_800)) * arch**0.7


def dog(d: Draws) -> Wave:
    """Two or three barks."""
    return _repeat(d, bark, int(2 + d.rng.integers(2)), 0.34)


def bird(d: Draws) -> Wave:
    """A trill of quick chirps between 3 and 5 kHz."""
    low = d.uniform(2_900, 3_600)
    n = seconds(0.09)
    chirp = tone(low + 1_500 * np.sin(np.pi * np.arange(n) / n), {1: 1.0}) * np.hanning(n)
    return place(seconds(1.05), [(0.13 * i + d.uniform(0, 0.02), chirp) for i in range(7)])


def knock(d: Draws) -> Wave:
    """One rap on a wooden door."""
    n = seconds(0.14)
    body = tone(steady(d.uniform(330, 420), 0.14), {1: 1, 2.3: 0.5}) * decay(n, 0.12)
    return body + 0.6 * band_noise(d, n, 500, 1_500) * decay(n, 0.04)


def knocking(d: Draws) -> Wave:
    """Three to five quick raps."""
    return _repeat(d, knock, int(3 + d.rng.integers(3)), 0.2)


def glass(d: Draws) -> Wave:
    """A glass that breaks: a splash of high inharmonic ringing."""
    n = seconds(0.9)
    shards = [
        (
            float(d.rng.random() ** 2 * 0.4),
            tone(steady(d.uniform(3_500, 9_500), 0.45), {1: 1.0}) * decay(seconds(0.45), 0.3),
        )
        for _ in range(14)
    ]
    return 0.35 * place(n, shards) + 0.8 * band_noise(d, n, 4_000, 11_000) * decay(n, 0.35)


def honk(d: Draws) -> Wave:
    """One blast of a car's two-note horn."""
    length, low = d.uniform(0.28, 0.36), d.uniform(390, 430)
    buzz = {h: 1 / h for h in range(1, 9)}
    return fade(tone(steady(low, length), buzz) + tone(steady(low * 1.26, length), buzz), 0.015, 0.03)


def horn(d: Draws) -> Wave:
    """Two blasts of a car horn."""
    return _repeat(d, honk, 2, 0.5)


def clap(d: Draws) -> Wave:
    """One hand clap."""
    n = seconds(0.1)
    return band_noise(d, n, d.uniform(900, 1_200), 3_000, 2) * decay(n, 0.09, 0.001)


def clapping(d: Draws) -> Wave:
    """Applause of several people."""
    return place(seconds(1.1), [(float(d.rng.random()), (0.5 + d.rng.random()) * clap(d)) for _ in range(26)])


def telephone(d: Draws) -> Wave:
    """An old telephone: a bell struck twenty times a second."""
    length = d.uniform(0.9, 1.1)
    t = times(seconds(length))
    strike = 10 ** (-1.5 * ((t * d.uniform(19, 23)) % 1.0))
    f = d.uniform(1_350, 1_600)
    return fade(tone(steady(f, length), {1: 1, 1.28: 0.9, 2.55: 0.4, 3.4: 0.25}) * strike, 0.01, 0.08)


def beep(d: Draws) -> Wave:
    """One beep of an electronic alarm."""
    return fade(tone(steady(d.uniform(1_900, 2_300), 0.14), {1: 1, 3: 0.4}), 0.004, 0.004)


def thunder(d: Draws) -> Wave:
    """A crack and a long low rumble."""
    n = seconds(1.2)
    rumble = band_noise(d, n, 35, d.uniform(110, 150)) * decay(n, 2.2, 0.06)
    swell = 1 + 0.6 * np.sin(2 * np.pi * d.uniform(3, 5) * times(n))
    return 1.5 * rumble * swell + 0.7 * band_noise(d, n, 150, 900, 1) * decay(n, 0.5)


def _repeat(d: Draws, unit: Callable[[Draws], Wave], count: int, gap: float) -> Wave:
    """`count` units, one every `gap` seconds."""
    units = [unit(d) for _ in range(count)]
    return place(seconds(gap * (count - 1)) + len(units[-1]), [(gap * i, wave) for i, wave in enumerate(units)])


EVENTS: dict[str, Callable[[Draws], Wave]] = {
    "doorbell": doorbell,
    "siren": siren,
    "dog": dog,
    "bird": bird,
    "knocking": knocking,
    "glass": glass,
    "horn": horn,
    "clapping": clapping,
    "telephone": telephone,
    "thunder": thunder,
}
"""Label (one word, as answered) → one occurrence of 0.5 to 1.25 s."""

UNITS: dict[str, Callable[[Draws], Wave]] = {"bark": bark, "knock": knock, "honk": honk, "beep": beep}
"""Label → one countable unit of at most 0.4 s."""


GLIDES = ("rising", "falling", "steady", "wavering")


def sweep(d: Draws, direction: str, length: float) -> Wave:
    """A tone of `length` seconds that rises or falls by 1.2 to 2 octaves, stays steady, or wavers by half an octave."""
    time = np.arange(seconds(length)) / seconds(length)
    span, middle = d.uniform(1.2, 2.0), d.uniform(550, 1_000)
    octaves = {
        "rising": span * (time - 0.5),
        "falling": span * (0.5 - time),
        "steady": 0 * time,
        "wavering": 0.25 * span * np.sin(2 * np.pi * d.uniform(3.5, 5.5) * length * time),
    }[direction]
    timbre = [{1: 1.0}, {1: 1, 2: 0.5, 3: 0.3}, {1: 1, 3: 0.4, 5: 0.2}][int(d.rng.integers(3))]
    return fade(tone(middle * 2**octaves, timbre), 0.03, 0.03)
