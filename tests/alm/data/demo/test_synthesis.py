"""Sounds, textures and instruments are what their labels say: pitches, directions, counts, bands."""

from itertools import pairwise

import numpy as np
import pytest

from alm.data.demo.effects import SAMPLING_RATE, Draws, Wave, active_rms, rms, seconds
from alm.data.demo.music import (
    BEATS,
    CHORD_INSTRUMENTS,
    CHORD_ROOTS,
    INSTRUMENTS,
    THIRDS,
    chord,
    drum_track,
    hertz,
    line,
    rhythm,
    tune,
)
from alm.data.demo.render import render
from alm.data.demo.scenes import Scene
from alm.data.demo.sounds import EVENTS, UNITS, sweep
from alm.data.demo.textures import TEXTURES

NAMES = ("clip-1", "clip-2", "clip-3")


def fundamental(wave: Wave, low: float, high: float) -> float:
    """The frequency in [low, high] whose first four multiples hold the most amplitude."""
    n = 1 << 17
    spectrum = np.abs(np.fft.rfft(wave * np.hanning(len(wave)), n))
    candidates = np.arange(int(low * n / SAMPLING_RATE), int(high * n / SAMPLING_RATE))
    score = sum(spectrum[np.minimum(candidates * h, len(spectrum) - 1)] for h in (1, 2, 3, 4))
    return float(candidates[np.argmax(score)] * SAMPLING_RATE / n)


@pytest.mark.parametrize("label", EVENTS)
def test_events_are_audible_and_short(label: str) -> None:
    waves = [EVENTS[label](Draws(0, name, "train")) for name in NAMES]
    for wave in waves:
        assert np.isfinite(wave).all() and active_rms(wave) > 0.01
        assert seconds(0.4) < len(wave) <= seconds(1.26)
    assert len({wave.tobytes() for wave in waves}) == len(NAMES)


@pytest.mark.parametrize("label", UNITS)
def test_units_are_short_enough_to_be_counted(label: str) -> None:
    assert seconds(0.05) < len(UNITS[label](Draws(0, "u", "train"))) <= seconds(0.4)


@pytest.mark.parametrize("label", TEXTURES)
@pytest.mark.parametrize("samples", [seconds(1.6), seconds(3.0) - 1])
def test_textures_fill_the_clip(label: str, samples: int) -> None:
    wave = TEXTURES[label](Draws(0, "t", "train"), samples)
    assert wave.shape == (samples,) and np.isfinite(wave).all()
    halves = [rms(half) for half in np.array_split(wave, 2)]
    assert min(halves) > 0.1 * max(halves)


@pytest.mark.parametrize(("direction", "sign"), [("rising", 1), ("falling", -1), ("steady", 0)])
def test_sweeps_go_the_way_they_say(direction: str, sign: int) -> None:
    for name in NAMES:
        wave = sweep(Draws(0, name, "train"), direction, 1.2)
        start, end = (fundamental(part, 150, 2_500) for part in (wave[2_000:4_400], wave[-4_400:-2_000]))
        octaves = np.log2(end / start)
        assert abs(octaves) < 0.02 if sign == 0 else octaves * sign > 0.8


@pytest.mark.parametrize("instrument", [name for name in INSTRUMENTS if name not in ("bell", "organ")])
@pytest.mark.parametrize("pitch", [64.0, 72.3, 79.0])
def test_instruments_are_in_tune(instrument: str, pitch: float) -> None:
    wave = INSTRUMENTS[instrument](Draws(0, "note", "train"), pitch, 0.6)
    wanted = hertz(pitch - 24 if instrument == "bass" else pitch)
    found = fundamental(wave, wanted * 0.8, wanted * 1.25)
    assert abs(1_200 * np.log2(found / wanted)) < 15  # cents


@pytest.mark.parametrize("instrument", CHORD_INSTRUMENTS)
@pytest.mark.parametrize("texture", ["together", "separately"])
@pytest.mark.parametrize("quality", THIRDS)
def test_chords_hold_their_third_and_not_the_other(instrument: str, texture: str, quality: str) -> None:
    assert min(hertz(root + 4) - hertz(root + 3) for root in CHORD_ROOTS) > SAMPLING_RATE / 1_024
    root = CHORD_ROOTS[1]
    wave = chord(Draws(0, "c", "train"), instrument, quality, texture, root, 2.0)
    spectrum = np.abs(np.fft.rfft(wave * np.hanning(len(wave))))
    f = np.fft.rfftfreq(len(wave), 1 / SAMPLING_RATE)
    level = {q: spectrum[np.abs(f / hertz(root + step) - 1) < 0.02].max() for q, step in THIRDS.items()}
    other = "minor" if quality == "major" else "major"
    assert level[quality] > 2 * level[other]


def onsets(wave: Wave) -> int:
    """Rises of the 20-ms level above a tenth of its maximum."""
    block = seconds(0.02)
    level = np.sqrt(np.mean(wave[: len(wave) // block * block].reshape(-1, block) ** 2, axis=1))
    loud = level > 0.1 * level.max()
    return int(np.sum(loud[1:] & ~loud[:-1]) + loud[0])


@pytest.mark.parametrize("label", UNITS)
@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_units_can_be_counted(label: str, count: int) -> None:
    scene = Scene("train_counting_00000", "train", "sound", "counting", {"unit": label, "count": count, "room": False})
    assert onsets(render(scene, 0)) == count


@pytest.mark.parametrize(("direction", "sign"), [("rising", 1), ("falling", -1), ("steady", 0)])
@pytest.mark.parametrize("instrument", ["piano", "trumpet"])
def test_lines_go_the_way_they_say(instrument: str, direction: str, sign: int) -> None:
    wave = line(Draws(0, "m", "train"), instrument, direction, 2.2)
    start, end = (fundamental(part, 200, 1_200) for part in (wave[500:5_000], wave[-5_500:-1_000]))
    octaves = np.log2(end / start)
    assert abs(octaves) < 0.02 if sign == 0 else octaves * sign > 1.6


def test_tempi_are_far_apart() -> None:
    beats = [BEATS[name] for name in ("fast", "medium", "slow")]
    assert all(a[1] * 1.5 < b[0] for a, b in pairwise(beats))
    hits = [onsets(rhythm(Draws(0, "r", "train"), tempo, 2.4)) for tempo in ("slow", "fast")]
    assert hits[0] < hits[1]


def test_drums_are_added_only_where_asked() -> None:
    def level_high(drums: bool) -> float:
        wave = tune(Draws(0, "d", "train"), "bass", drums, 2.0)
        spectrum = np.abs(np.fft.rfft(wave)) ** 2
        return float(spectrum[np.fft.rfftfreq(len(wave), 1 / SAMPLING_RATE) > 5_000].sum() / spectrum.sum())

    assert level_high(True) > 10 * level_high(False)
    assert onsets(drum_track(Draws(0, "k", "train"), seconds(2.0), 0.4)) >= 4
