"""What each clip of the demo corpus holds: scenes drawn from balanced decks, before any sound is made.

What train and test share: words, sound classes, textures, instruments, chord roots, question texts. What is disjoint: carrier
sentences and turns (`lexicon.CARRIERS`, `SENTENCES`, `PHRASES`), voices (`lexicon.VOICES`), and every synthesis parameter drawn by
`effects.Draws.uniform` (test values lie in cells of the range that training never uses).
"""

import re
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from alm.data.demo.lexicon import ACCENTS, CARRIERS, PHRASES, PITCHES, RATES, SENTENCES, VOICES, WORDS
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
        pitch, span = int(deck.rng.integers(*PITCHES[sex])), int(deck.rng.integers(30, 71))
        out.append({"variant": variant, "sex": sex, "accent": accent, "pitch": pitch, "range": span})
    return out


def _spoken(deck: Deck, split: str, count: int, carriers: Sequence[str]) -> list[Facts]:
    """One speaker, one sentence with one keyword."""
    sexes, words, around = (deck.deal(items, count) for items in (("man", "woman"), WORDS, carriers))
    return [
        {"word": word, "text": _sentence_case(carrier.format(word)), "speakers": [speaker]}
        for speaker, word, carrier in zip(_voices(deck, split, sexes), words, around, strict=True)
    ]


def _sentence_case(text: str) -> str:
    """Capitals at the start of every sentence."""
    return re.sub(r"(^|[.!?] )([a-z])", lambda match: match[1] + match[2].upper(), text)


def _crossed(deck: Deck, number: int, /, **factors: Sequence[Any]) -> list[Facts]:
    """Facts whose factors are dealt independently of each other."""
    columns = [deck.deal(values, number) for values in factors.values()]
    return [dict(zip(factors, row, strict=True)) for row in zip(*columns, strict=True)]


def word(deck: Deck, split: str, count: int) -> list[Facts]:
    """A short clean sentence around a keyword."""
    return _spoken(deck, split, count, CARRIERS[split])


def pace(deck: Deck, split: str, count: int) -> list[Facts]:
    """A clean sentence at one of three speaking rates."""
    rates = deck.deal(tuple(RATES), count)
    spoken = _spoken(deck, split, count, SENTENCES[split])
    return [{**facts, "rate": rate} for facts, rate in zip(spoken, rates, strict=True)]


def background_word(deck: Deck, split: str, count: int) -> list[Facts]:
    """A short sentence over a texture or over music."""
    backgrounds = deck.deal((*TEXTURES, "music"), count)
    spoken = _spoken(deck, split, count, CARRIERS[split])
    return [{**facts, "background": background} for facts, background in zip(spoken, backgrounds, strict=True)]


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
    """One event over a texture."""
    return _crossed(deck, count, event=tuple(EVENTS), background=tuple(TEXTURES))


def order(deck: Deck, split: str, count: int) -> list[Facts]:
    """Two different events, one after the other; one of the two is asked for.

    Not both: two questions about one clip would share just the two true labels among their choices, and tell each other's answer.
    """
    ends, out = deck.deal(("first", "last"), count), []
    pairs = {end: iter(deck.pairs(tuple(EVENTS), ends.count(end))) for end in ("first", "last")}
    for end in ends:
        out.append({"events": list(next(pairs[end])), "asked": end})
    return out


def counting(deck: Deck, split: str, count: int) -> list[Facts]:
    """One unit, one to four times."""
    return _crossed(deck, count, unit=tuple(UNITS), count=(1, 2, 3, 4))


def glide(deck: Deck, split: str, count: int) -> list[Facts]:
    """A tone whose pitch rises, falls, stays or wavers."""
    return _crossed(deck, count, direction=GLIDES)


def tune(deck: Deck, split: str, count: int) -> list[Facts]:
    """A tune of one instrument, with or without drums."""
    return _crossed(deck, count, instrument=tuple(INSTRUMENTS), drums=(True, False))


def rhythm(deck: Deck, split: str, count: int) -> list[Facts]:
    """Drums and bass at one of three tempi."""
    return _crossed(deck, count, tempo=tuple(BEATS))


def line(deck: Deck, split: str, count: int) -> list[Facts]:
    """A melody that rises, falls, repeats one note or alternates between two."""
    return _crossed(deck, count, instrument=tuple(INSTRUMENTS), direction=MOVES)


def chord(deck: Deck, split: str, count: int) -> list[Facts]:
    """A major or minor triad, its notes together or one by one."""
    textures = ("together", "separately")
    return _crossed(
        deck, count, instrument=CHORD_INSTRUMENTS, quality=tuple(THIRDS), texture=textures, root=CHORD_ROOTS
    )


@dataclass(frozen=True)
class Form:
    """A sort of scene: its domain, its share of the clips (any unit), how its facts are drawn, and whether some get a room."""

    domain: str
    share: float
    draw: Callable[[Deck, str, int], list[Facts]]
    rooms: bool = False


FORMS: dict[str, Form] = {
    "word": Form("speech", 14, word, rooms=True),
    "pace": Form("speech", 7, pace, rooms=True),
    "background_word": Form("speech", 11, background_word),
    "conversation": Form("speech", 9, conversation, rooms=True),
    "event": Form("sound", 10, event),
    "order": Form("sound", 14, order, rooms=True),
    "counting": Form("sound", 7, counting, rooms=True),
    "glide": Form("sound", 6, glide, rooms=True),
    "tune": Form("music", 7, tune, rooms=True),
    "rhythm": Form("music", 7, rhythm, rooms=True),
    "line": Form("music", 6, line, rooms=True),
    "chord": Form("music", 7, chord, rooms=True),
}

ROOMS = (True, False, False, False)
"""One clip in four of the forms without a background get a room."""


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
