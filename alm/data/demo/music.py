"""Music: eight instruments, drums, and the four forms of piece that the questions are about."""

from collections.abc import Callable, Sequence

import numpy as np

from alm.data.demo.effects import SAMPLING_RATE, Draws, Wave, band_noise, decay, fade, place, seconds, times
from alm.data.demo.sounds import steady, tone


def hertz(pitch: float) -> float:
    """Frequency of a MIDI pitch (69 is 440 Hz); fractions are detuning."""
    return 440.0 * 2 ** ((pitch - 69) / 12)


def piano(d: Draws, pitch: float, length: float) -> Wave:
    """Struck string: stretched partials, fast attack, long decay."""
    f, n = hertz(pitch), seconds(length)
    partials = {h * float(np.sqrt(1 + 4e-4 * h * h)): h**-1.3 for h in range(1, 8)}
    return fade(
        tone(steady(f, length), partials) * decay(n, 1.6, 0.003) + 0.1 * band_noise(d, n, 300, 2_000) * decay(n, 0.04),
        0,
        0.02,
    )


def organ(d: Draws, pitch: float, length: float) -> Wave:
    """Pipes at octaves and fifths, constant loudness."""
    return fade(tone(steady(hertz(pitch), length), {0.5: 0.5, 1: 1, 2: 0.8, 3: 0.5, 4: 0.6, 8: 0.4}), 0.02, 0.03)


def guitar(d: Draws, pitch: float, length: float) -> Wave:
    """Plucked string after Karplus and Strong (1983), one period of numpy at a time, then tuned by interpolation."""
    frequency = hertz(pitch)
    period = int(SAMPLING_RATE / frequency)
    stretch = (SAMPLING_RATE / frequency) / (period + 0.5)  # the two-point average adds half a sample of delay
    string = d.rng.uniform(-1, 1, period)
    blocks = []
    for _ in range(int(length * frequency) + 3):
        string = 0.996 * 0.5 * (string + np.roll(string, 1))
        blocks.append(string)
    raw = np.concatenate(blocks)
    return fade(np.interp(np.arange(seconds(length)) / stretch, np.arange(len(raw)), raw), 0, 0.02)


def flute(d: Draws, pitch: float, length: float) -> Wave:
    """Almost a sine with vibrato and breath."""
    n, f = seconds(length), hertz(pitch)
    vibrato = 1 + 0.008 * np.sin(2 * np.pi * d.uniform(4.5, 6) * times(n))
    return fade(tone(f * vibrato, {1: 1, 2: 0.12}) + 0.12 * band_noise(d, n, f, 3 * f, 2), 0.05, 0.04)


def violin(d: Draws, pitch: float, length: float) -> Wave:
    """Bowed strings: two detuned sawtooths with slow attack and vibrato."""
    n, f = seconds(length), hertz(pitch)
    saw = {h: 1 / h for h in range(1, 13)}
    vibrato = 1 + 0.006 * np.sin(2 * np.pi * d.uniform(5, 6.5) * times(n))
    return fade(tone(f * vibrato, saw) + tone(steady(f * 1.006, length), saw), min(0.12, length / 3), 0.05)


def bell(d: Draws, pitch: float, length: float) -> Wave:
    """Tuned bar: the inharmonic partials of a glockenspiel, an octave up."""
    n = seconds(length)
    return fade(tone(steady(2 * hertz(pitch), length), {1: 1, 2.76: 0.6, 5.4: 0.3}) * decay(n, 1.1, 0.001), 0, 0.02)


def trumpet(d: Draws, pitch: float, length: float) -> Wave:
    """Brass: upper partials enter after the lower ones."""
    n, f = seconds(length), hertz(pitch)
    t = times(n)
    bright = np.minimum(t / 0.06, 1)
    wave = np.zeros(n)
    for h in range(1, 13):
        wave += np.sin(2 * np.pi * f * h * t) * bright ** (h / 3) * (1.2 if 3 <= h <= 6 else 0.7) / h**0.5
    return fade(wave, 0.015, 0.04)


def bass(d: Draws, pitch: float, length: float) -> Wave:
    """Bass guitar, two octaves below the written pitch."""
    n = seconds(length)
    return fade(
        tone(steady(hertz(pitch - 24), length), {1: 1, 2: 0.7, 3: 0.35, 4: 0.15}) * decay(n, 1.2, 0.005), 0, 0.02
    )


INSTRUMENTS: dict[str, Callable[[Draws, float, float], Wave]] = {
    "piano": piano,
    "organ": organ,
    "guitar": guitar,
    "flute": flute,
    "violin": violin,
    "bell": bell,
    "trumpet": trumpet,
    "bass": bass,
}
"""Label (one word, as answered) → a note of a MIDI pitch and a length in seconds."""

CHORD_INSTRUMENTS = ("piano", "organ")
"""Those that play the chord pieces: steady harmonic partials, so that the third is heard."""
CHORD_ROOTS = (72, 77)
"""C5 and F5: there the two thirds differ by 31 Hz or more, which a 1,024-point spectrum at 24 kHz resolves."""
THIRDS = {"major": 4, "minor": 3}
MOVES = ("rising", "falling", "steady", "alternating")
BEATS = {"slow": (0.7, 0.85), "medium": (0.34, 0.4), "fast": (0.15, 0.18)}
"""Tempo label → seconds per beat."""


def drum_track(d: Draws, samples: int, beat: float) -> Wave:
    """Kick and snare in turn, one every `beat` seconds."""
    n = seconds(0.16)
    kick = tone(50 + 110 * np.exp(-35 * times(n)), {1: 1.0}) * decay(n, 0.2)
    kick += 0.2 * band_noise(d, n, 2_000, 6_000) * decay(n, 0.02, 0.001)
    snare = band_noise(d, n, 1_200, 9_000, 2) * decay(n, 0.13, 0.001) * 0.5
    return place(
        samples, [(beat * i, snare if i % 2 else kick) for i in range(int(samples / SAMPLING_RATE / beat) + 1)]
    )


def _sequence(d: Draws, instrument: str, pitches: Sequence[float], beat: float) -> Wave:
    """One note of `instrument` per `beat` seconds, peak 1."""
    play = INSTRUMENTS[instrument]
    wave = place(
        seconds(len(pitches) * beat), [(beat * i, play(d, float(p), 0.92 * beat)) for i, p in enumerate(pitches)]
    )
    return wave / np.abs(wave).max()


def tune(d: Draws, instrument: str, drums: bool, length: float) -> Wave:
    """Random notes of a pentatonic scale, with or without drums."""
    beat = d.uniform(0.28, 0.36)
    pitches = 70 + d.uniform(-2, 2) + d.rng.choice([-6, -3, -1, 1, 4, 6], size=int(length / beat))
    wave = _sequence(d, instrument, list(pitches), beat)
    return wave + 0.9 * drum_track(d, len(wave), beat) if drums else wave


def rhythm(d: Draws, tempo: str, length: float) -> Wave:
    """Drums with a bass guitar that walks between root and fifth."""
    beat = d.uniform(*BEATS[tempo])
    count = max(3, int(length / beat))
    root = 64 + d.uniform(-3, 3)
    wave = _sequence(d, "bass", [root + (7 if i % 4 > 1 else 0) for i in range(count)], beat)
    return 0.5 * wave + drum_track(d, len(wave), beat)


def line(d: Draws, instrument: str, direction: str, length: float) -> Wave:
    """Six to nine notes that climb or fall two octaves in all, stay on one pitch, or go to and fro."""
    beat = d.uniform(0.24, 0.3)
    count = int(length / beat)
    way = 24 * (np.arange(count) / (count - 1) - 0.5)
    steps = {
        "rising": way,
        "falling": -way,
        "steady": np.full(count, d.uniform(-10, 10)),
        "alternating": 9.0 * (-1) ** np.arange(count),
    }[direction]
    return _sequence(d, instrument, list(72 + d.uniform(-1, 1) + np.round(steps)), beat)


def chord(d: Draws, instrument: str, quality: str, texture: str, root: int, length: float) -> Wave:
    """A triad on `root`, its notes together (struck twice) or one after another (up and down)."""
    play, detune = INSTRUMENTS[instrument], d.uniform(-0.15, 0.15)
    triad = [root + detune + step for step in (0, THIRDS[quality], 7)]
    if texture == "together":
        half = length / 2
        block = np.sum([play(d, pitch, 0.95 * half) for pitch in triad], axis=0)
        return place(seconds(length), [(0.0, block), (half, block)])
    step = length / 8
    order = [0, 1, 2, 1, 0, 1, 2, 1]
    return place(seconds(length), [(step * i, play(d, triad[k], 0.95 * step)) for i, k in enumerate(order)])
