"""What each clip of the demo corpus holds: scenes drawn from balanced decks, before any sound is made.

What train and test share: words, sound classes, textures, instruments, chord roots, question texts. What is disjoint: carrier
sentences and turns (`lexicon.CARRIERS`, `lexicon.PHRASES`), voices (`lexicon.VOICES`), and every synthesis parameter drawn by
`effects.Draws.uniform` (test values lie in cells of the range that training never uses).
"""

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from alm.data.demo.lexicon import ACCENTS, CARRIERS, PHRASES, RATES, VOICES, WORDS
from alm.data.demo.music import BEATS, CHORD_INSTRUMENTS, CHORD_ROOTS, INSTRUMENTS, MOVES, THIRDS
from alm.data.demo.sounds import EVENTS, GLIDES, UNITS
from alm.data.demo.textures import TEXTURES

Facts = dict[str, Any]
Item = TypeVar("Item")


@dataclass(frozen=True)
class Scene:
    """One clip to be made: `id` is unique in the corpus, `facts` is all that captions and questions may state."""

    id: str
    split: str
    domain: str
    form: str
    facts: Facts


class Deck:
    """Balanced draws: every item of a list equally often (within one), in random order."""

    def __init__(self, seed: int, name: str) -> None:
        self.rng = np.random.default_rng([seed, zlib.crc32(name.encode())])

    def deal(self, items: Sequence[Item], count: int) -> list[Item]:
        """`count` draws; the items that come once more than the others are drawn at random too."""
        rounds = [int(i) for _ in range(-(-count // len(items))) for i in self.rng.permutation(len(items))][:count]
        return [items[rounds[i]] for i in self.rng.permutation(count)]

    def pairs(self, items: Sequence[Item], count: int) -> list[tuple[Item, Item]]:
        """`count` pairs of different items; each item equally often first, equally often second (within one)."""
        n = len(items)
        drawn: list[tuple[Item, Item]] = []
        while len(drawn) < count:
            order, shift = self.rng.permutation(n), 1 + int(self.rng.integers(n - 1))
            drawn += [(items[int(i)], items[(int(i) + shift) % n]) for i in order]
        return [drawn[int(i)] for i in self.rng.permutation(count)]


def _voices(deck: Deck, split: str, sexes: list[str]) -> list[dict[str, Any]]:
    """A speaker of each sex asked for: variant, accent, pitch and range."""
    out = []
    for sex in sexes:
        same = [voice.variant for voice in VOICES[split] if voice.sex == sex]
        variant, accent = same[deck.rng.integers(len(same))], list(ACCENTS)[deck.rng.integers(len(ACCENTS))]
        pitch, span = int(deck.rng.integers(38, 63)), int(deck.rng.integers(30, 71))
        out.append({"variant": variant, "sex": sex, "accent": accent, "pitch": pitch, "range": span})
    return out


def _spoken(deck: Deck, split: str, count: int, rates: Sequence[str]) -> list[Facts]:
    """One speaker, one sentence with one keyword."""
    sexes, words = deck.deal(("man", "woman"), count), deck.deal(WORDS, count)
    rate, carriers = deck.deal(rates, count), deck.deal(CARRIERS[split], count)
    return [
        {"word": w, "rate": r, "text": c.format(w), "speakers": [s]}
        for s, w, r, c in zip(_voices(deck, split, sexes), words, rate, carriers, strict=True)
    ]


def sentence(deck: Deck, split: str, count: int) -> list[Facts]:
    """A clean sentence at one of three speaking rates."""
    return _spoken(deck, split, count, tuple(RATES))


def background_sentence(deck: Deck, split: str, count: int) -> list[Facts]:
    """A sentence over a texture or over music."""
    backgrounds = deck.deal((*TEXTURES, "music"), count)
    return [{**f, "background": b} for f, b in zip(_spoken(deck, split, count, ("normal",)), backgrounds, strict=True)]


def noisy_sentence(deck: Deck, split: str, count: int) -> list[Facts]:
    """A sentence in steady noise."""
    noises = deck.deal(("white", "pink", "low"), count)
    return [{**f, "noise": n} for f, n in zip(_spoken(deck, split, count, ("normal",)), noises, strict=True)]


def conversation(deck: Deck, split: str, count: int) -> list[Facts]:
    """One, two or three people in turn; two are a man and a woman, three are of both sexes."""
    out: list[Facts] = []
    people = deck.deal((1, 2, 3), count)
    first = {n: iter(deck.deal(("man", "woman"), people.count(n))) for n in (1, 2, 3)}
    for number in people:
        lead = next(first[number])
        other = "woman" if lead == "man" else "man"
        third = ("man", "woman")[deck.rng.integers(2)]
        speakers = _voices(deck, split, [lead, other, third][:number])
        while len({(s["variant"]) for s in speakers}) < number:
            speakers = _voices(deck, split, [lead, other, third][:number])
        turns = {1: ([0], [0, 0]), 2: ([0, 1], [0, 1, 0]), 3: ([0, 1, 2], [0, 1, 2])}[number][deck.rng.integers(2)]
        said = [PHRASES[split][int(i)] for i in deck.rng.choice(len(PHRASES[split]), len(turns), replace=False)]
        out.append({"speakers": speakers, "turns": turns, "phrases": said, "text": " ".join(said)})
    return out


def event(deck: Deck, split: str, count: int) -> list[Facts]:
    """One event over a texture; whether a named sound occurs is asked of it."""
    yes = deck.deal((True, False), count)
    pairs = iter(deck.pairs(tuple(EVENTS), yes.count(False)))
    present = iter(deck.deal(tuple(EVENTS), yes.count(True)))
    backgrounds = deck.deal(tuple(TEXTURES), count)
    out = []
    for is_present, background in zip(yes, backgrounds, strict=True):
        label, asked = (next(present),) * 2 if is_present else next(pairs)
        out.append({"event": label, "asked": asked, "background": background})
    return out


def counting(deck: Deck, split: str, count: int) -> list[Facts]:
    """One unit, one to four times, over a quiet texture."""
    numbers, units, backgrounds = (deck.deal(tuple(x), count) for x in ((1, 2, 3, 4), UNITS, TEXTURES))
    return [{"unit": u, "count": n, "background": b} for u, n, b in zip(units, numbers, backgrounds, strict=True)]


def order(deck: Deck, split: str, count: int) -> list[Facts]:
    """Two different events, one after the other."""
    return [{"events": list(pair)} for pair in deck.pairs(tuple(EVENTS), count)]


def sweep(deck: Deck, split: str, count: int) -> list[Facts]:
    """A tone whose pitch rises, falls, stays or wavers, over a quiet texture."""
    directions = deck.deal(GLIDES, count)
    backgrounds = deck.deal(tuple(TEXTURES), count)
    return [{"direction": d, "background": b} for d, b in zip(directions, backgrounds, strict=True)]


def melody(deck: Deck, split: str, count: int) -> list[Facts]:
    """Notes of one instrument in a tempo and a direction, with or without drums."""
    names = ("instrument", "tempo", "direction", "drums")
    ranges: tuple[Sequence[Any], ...] = (
        tuple(INSTRUMENTS),
        tuple(BEATS),
        MOVES,
        (True, False),
    )
    columns = [deck.deal(values, count) for values in ranges]
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def chord(deck: Deck, split: str, count: int) -> list[Facts]:
    """A major or minor triad, its notes together or one by one."""
    names = ("instrument", "quality", "texture", "root")
    ranges: tuple[Sequence[Any], ...] = (CHORD_INSTRUMENTS, tuple(THIRDS), ("together", "separately"), CHORD_ROOTS)
    columns = [deck.deal(values, count) for values in ranges]
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def notes(deck: Deck, split: str, count: int) -> list[Facts]:
    """Two to five separate notes."""
    numbers, instruments = deck.deal((2, 3, 4, 5), count), deck.deal(tuple(INSTRUMENTS), count)
    return [{"count": n, "instrument": i} for n, i in zip(numbers, instruments, strict=True)]


@dataclass(frozen=True)
class Form:
    """A sort of scene: its domain, its share of the clips (any unit), how its facts are drawn, and whether some get a room."""

    domain: str
    share: float
    draw: Callable[[Deck, str, int], list[Facts]]
    rooms: bool = False


FORMS: dict[str, Form] = {
    "sentence": Form("speech", 14, sentence, rooms=True),
    "background_sentence": Form("speech", 9, background_sentence),
    "noisy_sentence": Form("speech", 6, noisy_sentence),
    "conversation": Form("speech", 12, conversation, rooms=True),
    "event": Form("sound", 11, event),
    "counting": Form("sound", 8, counting),
    "order": Form("sound", 9, order, rooms=True),
    "sweep": Form("sound", 5, sweep),
    "melody": Form("music", 13, melody, rooms=True),
    "chord": Form("music", 8, chord, rooms=True),
    "notes": Form("music", 5, notes, rooms=True),
}


ROOMS = (True,) * 3 + (False,) * 7
"""Three clips in ten of the forms without a background get a room."""


def allocate(clips: int) -> dict[str, int]:
    """`clips` shared out over the forms by their shares (largest remainders)."""
    total = sum(form.share for form in FORMS.values())
    exact = {name: clips * form.share / total for name, form in FORMS.items()}
    counts = {name: int(value) for name, value in exact.items()}
    for name in sorted(exact, key=lambda name: counts[name] - exact[name])[: clips - sum(counts.values())]:
        counts[name] += 1
    return counts


def plan(split: str, clips: int, seed: int) -> list[Scene]:
    """The `clips` scenes of a split ("train" or "test"): the same for the same arguments."""
    scenes = []
    for name, count in allocate(clips).items():
        form, deck = FORMS[name], Deck(seed, f"{split}/{name}")
        facts = form.draw(deck, split, count)
        rooms = deck.deal(ROOMS, count) if form.rooms else [False] * count
        scenes += [
            Scene(f"{split}_{name}_{i:05d}", split, form.domain, name, {**fact, "room": room})
            for i, (fact, room) in enumerate(zip(facts, rooms, strict=True))
        ]
    return scenes
