"""Scenes to waveforms: one function per form. A waveform is a function of the seed and the scene alone."""

from collections.abc import Callable

import numpy as np

from alm.data.demo import music
from alm.data.demo.effects import (
    SAMPLING_RATE,
    Draws,
    Wave,
    active_rms,
    mix_at,
    place,
    reverberate,
    seconds,
    set_level,
)
from alm.data.demo.lexicon import RATES, TURN_RATE, WORD_RATE
from alm.data.demo.scenes import Scene
from alm.data.demo.sounds import EVENTS, UNITS, sweep
from alm.data.demo.speech import Speaker
from alm.data.demo.textures import TEXTURES

SHORTEST, LONGEST = 1.6, 3.0
"""Seconds of a clip."""


def _in_clip(draws: Draws, wave: Wave, extra: float = 0.4) -> Wave:
    """`wave` somewhere in a clip that is up to `extra` seconds longer, of at least the shortest and at most the longest length."""
    length = len(wave) / SAMPLING_RATE
    total = min(max(length + draws.uniform(0.1, extra), SHORTEST), LONGEST)
    return place(seconds(total), [(draws.uniform(0.2, 0.8) * max(total - length, 0), wave)])


def _say(draws: Draws, scene: Scene, rates: tuple[float, float]) -> Wave:
    who = scene.facts["speakers"][0]
    with Speaker() as voice:
        rate = draws.uniform(*rates)
        return voice.say(scene.facts["text"], f"{who['accent']}+{who['variant']}", rate, who["pitch"], who["range"])


def word(draws: Draws, scene: Scene) -> Wave:
    """A short sentence alone."""
    return _in_clip(draws, _say(draws, scene, WORD_RATE))


def pace(draws: Draws, scene: Scene) -> Wave:
    """A sentence at its rate."""
    return _in_clip(draws, _say(draws, scene, RATES[scene.facts["rate"]]))


def background_word(draws: Draws, scene: Scene) -> Wave:
    """A short sentence 8 to 14 dB over its background."""
    clip = _in_clip(draws, _say(draws, scene, WORD_RATE))
    label = scene.facts["background"]
    if label == "music":
        root = 60 + draws.uniform(-4, 4)
        background = np.sum([music.organ(draws, root + step, len(clip) / SAMPLING_RATE) for step in (0, 4, 7)], axis=0)
    else:
        background = TEXTURES[label](draws, len(clip))
    return mix_at(clip, background, draws.uniform(8, 14))


def conversation(draws: Draws, scene: Scene) -> Wave:
    """Turns at one level with short gaps."""
    parts, now = [], 0.0
    with Speaker() as voice:
        for turn, phrase in zip(scene.facts["turns"], scene.facts["phrases"], strict=True):
            who = scene.facts["speakers"][turn]
            said = voice.say(
                phrase, f"{who['accent']}+{who['variant']}", draws.uniform(*TURN_RATE), who["pitch"], who["range"]
            )
            parts.append((now, set_level(said, -20)))
            now += len(said) / SAMPLING_RATE + draws.uniform(0.12, 0.25)
    return _in_clip(draws, place(seconds(min(now, LONGEST)), parts), 0.3)


def event(draws: Draws, scene: Scene) -> Wave:
    """One event 12 to 18 dB over its texture."""
    clip = _in_clip(draws, EVENTS[scene.facts["event"]](draws), 1.2)
    return mix_at(clip, TEXTURES[scene.facts["background"]](draws, len(clip)), draws.uniform(12, 18))


def counting(draws: Draws, scene: Scene) -> Wave:
    """A unit repeated about every half second."""
    unit, gap = UNITS[scene.facts["unit"]], draws.uniform(0.46, 0.56)
    parts = [(gap * i + draws.uniform(0, 0.03), unit(draws)) for i in range(scene.facts["count"])]
    return _in_clip(draws, place(seconds(parts[-1][0]) + len(parts[-1][1]), parts), 0.6)


def order(draws: Draws, scene: Scene) -> Wave:
    """Two events at one level with a gap."""
    first, second = (set_level(EVENTS[label](draws), -20) for label in scene.facts["events"])
    start = len(first) / SAMPLING_RATE + draws.uniform(0.1, 0.3)
    return _in_clip(draws, place(seconds(start) + len(second), [(0.0, first), (start, second)]), 0.3)


def glide(draws: Draws, scene: Scene) -> Wave:
    """A sweep of about 1.4 s."""
    return _in_clip(draws, sweep(draws, scene.facts["direction"], draws.uniform(1.2, 1.6)))


def tune(draws: Draws, scene: Scene) -> Wave:
    """A tune of about 2 s."""
    f = scene.facts
    return _in_clip(draws, music.tune(draws, f["instrument"], f["drums"], draws.uniform(1.7, 2.2)), 0.2)


def rhythm(draws: Draws, scene: Scene) -> Wave:
    """Drums of about 2.3 s."""
    return _in_clip(draws, music.rhythm(draws, scene.facts["tempo"], draws.uniform(2.2, 2.6)), 0.2)


def line(draws: Draws, scene: Scene) -> Wave:
    """A melody of about 2 s."""
    f = scene.facts
    return _in_clip(draws, music.line(draws, f["instrument"], f["direction"], draws.uniform(1.8, 2.3)), 0.2)


def chord(draws: Draws, scene: Scene) -> Wave:
    """A triad of about 2 s."""
    f, length = scene.facts, draws.uniform(1.7, 2.2)
    return _in_clip(draws, music.chord(draws, f["instrument"], f["quality"], f["texture"], f["root"], length), 0.2)


RENDERERS: dict[str, Callable[[Draws, Scene], Wave]] = {
    "word": word,
    "pace": pace,
    "background_word": background_word,
    "conversation": conversation,
    "event": event,
    "order": order,
    "counting": counting,
    "glide": glide,
    "tune": tune,
    "rhythm": rhythm,
    "line": line,
    "chord": chord,
}


def render(scene: Scene, seed: int) -> Wave:
    """The clip of a scene `(S,)` at `SAMPLING_RATE`, 1.6 to 3.0 s, peak below 1, with a faint noise floor."""
    draws = Draws(seed, scene.id, scene.split)
    wave = RENDERERS[scene.form](draws, scene)
    if scene.facts.get("room"):
        wave = reverberate(draws, wave, draws.uniform(0.25, 0.6), draws.uniform(0.25, 0.5))
    floor = draws.noise(len(wave)) * active_rms(wave) * 10 ** (-draws.uniform(45, 60) / 20)
    return set_level(wave + floor, draws.uniform(-26, -18))
