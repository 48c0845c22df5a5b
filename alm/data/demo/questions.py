"""Facts to questions: twenty kinds, each with a closed set of labels, worded so that the text says nothing about the answer.

Labels come from balanced decks (`scenes.py`), wrong choices are drawn uniformly from the same labels, the position of the right
choice is balanced for every number of choices and every kind, and the wording is dealt independently of the answer.
"""

from collections import defaultdict
from dataclasses import dataclass
from typing import NamedTuple

from alm.data.demo.lexicon import RATES, WORDS
from alm.data.demo.music import BEATS, INSTRUMENTS, MOVES, THIRDS
from alm.data.demo.scenes import Deck, Scene
from alm.data.demo.sounds import EVENTS, GLIDES
from alm.data.demo.textures import TEXTURES
from alm.prompts import multiple_choice_prompt

NUMBERS = ("one", "two", "three", "four", "five")
SEMANTIC, PERCEPTION, SIGNAL, CULTURAL = (f"{name} Layer" for name in ("Semantic", "Perception", "Signal", "Cultural"))
"""MMAR's own layers."""


@dataclass(frozen=True)
class Kind:
    """A kind of question: its labels, how many of them are offered, its wordings, MMAR's layer, and whether it is hard."""

    labels: tuple[str, ...]
    choices: int
    wordings: tuple[str, ...]
    layer: str
    hard: bool = False


KINDS: dict[str, Kind] = {
    # any domain
    "content": Kind(("speech", "sound", "music"), 3, ("Is this speech, sound or music?",), SEMANTIC),
    # speech
    "speaker_sex": Kind(("man", "woman"), 2, ("Is the speaker a man or a woman?",), SEMANTIC),
    "keyword": Kind(WORDS, 4, ("Which keyword is spoken?",), SEMANTIC),
    "speaking_rate": Kind(tuple(RATES), 3, ("How fast does the speaker talk?",), PERCEPTION),
    "speech_background": Kind((*TEXTURES, "music"), 5, ("What is heard behind the speech?",), PERCEPTION),
    "word_in_noise": Kind(WORDS, 4, ("Which keyword is spoken?",), SEMANTIC, hard=True),
    "first_speaker": Kind(("man", "woman"), 2, ("Who speaks first?",), SEMANTIC, hard=True),
    "speaker_count": Kind(NUMBERS[:3], 3, ("How many people speak?",), PERCEPTION, hard=True),
    # sound
    "sound_event": Kind(tuple(EVENTS), 5, ("Which sound event is heard?", "What makes the loudest sound?"), PERCEPTION),
    "background": Kind(tuple(TEXTURES), 5, ("What is the background sound?",), PERCEPTION),
    "event_count": Kind(NUMBERS[:4], 4, ("How many times does the sound occur?",), PERCEPTION),
    "first_event": Kind(tuple(EVENTS), 5, ("Which sound comes first?",), PERCEPTION, hard=True),
    "last_event": Kind(tuple(EVENTS), 5, ("Which sound comes last?",), PERCEPTION, hard=True),
    "pitch_direction": Kind(GLIDES, 4, ("How does the pitch move?",), SIGNAL),
    # music
    "instrument": Kind(tuple(INSTRUMENTS), 5, ("Which instrument plays?", "What instrument is heard?"), PERCEPTION),
    "tempo": Kind(tuple(BEATS), 3, ("What is the tempo of the music?",), PERCEPTION),
    "chord_quality": Kind(tuple(THIRDS), 2, ("Is the chord major or minor?",), CULTURAL, hard=True),
    "chord_texture": Kind(
        ("together", "separately"), 2, ("Are the notes of the chord played together or separately?",), PERCEPTION
    ),
    "melody_direction": Kind(MOVES, 4, ("How does the pitch move?",), PERCEPTION),
    "drums": Kind(("yes", "no"), 2, ("Are there drums in the music?",), PERCEPTION),
}


class Asked(NamedTuple):
    """What a scene can be asked: a kind, the true label, and a label that must be offered too."""

    kind: str
    answer: str
    rival: str | None = None


@dataclass(frozen=True)
class Question:
    """One question about one clip; `choices` holds `answer` once, at a balanced position."""

    scene: Scene
    kind: str
    text: str
    choices: tuple[str, ...]
    answer: str

    @property
    def prompt(self) -> str:
        """The multiple-choice form: the MMAR authors' prompt, in training and evaluation alike."""
        return multiple_choice_prompt(self.text, self.choices)

    @property
    def modality(self) -> str:
        """MMAR's modality of the clip."""
        if self.scene.form != "background_word":
            return self.scene.domain
        return "mix-music-speech" if self.scene.facts["background"] == "music" else "mix-sound-speech"


def asked(scene: Scene) -> list[Asked]:
    """The questions that `scene` supports, in a fixed order per form."""
    return {"speech": _asked_of_speech, "sound": _asked_of_sound, "music": _asked_of_music}[scene.domain](scene)


def _asked_of_speech(scene: Scene) -> list[Asked]:
    f = scene.facts
    first = f["speakers"][0]["sex"]
    more = [Asked("speaker_sex", first)] if scene.split == "train" else []  # enough of them are tested elsewhere
    match scene.form:
        case "word":
            return [Asked("keyword", f["word"]), Asked("speaker_sex", first)]
        case "pace":
            return [Asked("speaking_rate", f["rate"]), Asked("content", scene.domain), *more]
        case "background_word":
            return [Asked("speech_background", f["background"]), Asked("word_in_noise", f["word"]), *more]
        case _:  # conversation
            count = len(f["speakers"])
            return [Asked("speaker_count", NUMBERS[count - 1]), Asked("first_speaker", first)]


def _asked_of_sound(scene: Scene) -> list[Asked]:
    f = scene.facts
    match scene.form:
        case "event":
            return [Asked("sound_event", f["event"]), Asked("background", f["background"])]
        case "order":
            first, last = f["events"]
            return [Asked("first_event", first, last) if f["asked"] == "first" else Asked("last_event", last, first)]
        case "counting":
            return [Asked("event_count", NUMBERS[f["count"] - 1]), Asked("content", scene.domain)]
        case _:  # glide
            return [Asked("pitch_direction", f["direction"])]


def _asked_of_music(scene: Scene) -> list[Asked]:
    f = scene.facts
    match scene.form:
        case "tune":
            return [Asked("instrument", f["instrument"]), Asked("drums", "yes" if f["drums"] else "no")]
        case "rhythm":
            return [Asked("tempo", f["tempo"]), Asked("content", scene.domain)]
        case "line":
            return [Asked("melody_direction", f["direction"]), Asked("instrument", f["instrument"])]
        case _:  # chord
            return [Asked("chord_quality", f["quality"]), Asked("chord_texture", f["texture"])]


def questions_of(scenes: list[Scene], seed: int) -> list[Question]:
    """All questions of the scenes of one split, in the order of the scenes."""
    by_kind: dict[str, list[tuple[int, Scene, Asked]]] = defaultdict(list)
    for index, scene in enumerate(scenes):
        for item in asked(scene):
            by_kind[item.kind].append((index, scene, item))
    split = scenes[0].split if scenes else ""
    out: list[tuple[int, Question]] = []
    dealt: dict[int, int] = defaultdict(
        int
    )  # questions so far by number of choices: positions go round over all kinds together
    for name, kind in KINDS.items():
        items, deck = by_kind[name], Deck(seed, f"questions/{split}/{name}")
        wordings = deck.deal(kind.wordings, len(items))
        ranks = deck.rng.permutation(len(items))
        for (index, scene, item), wording, rank in zip(items, wordings, ranks, strict=True):
            position = (dealt[kind.choices] + int(rank)) % kind.choices
            choices = _choices(deck, kind, item, position)
            out.append((index, Question(scene, name, wording, choices, item.answer)))
        dealt[kind.choices] += len(items)
    return [question for _, question in sorted(out, key=lambda pair: pair[0])]


def _choices(deck: Deck, kind: Kind, item: Asked, position: int) -> tuple[str, ...]:
    """Wrong labels drawn uniformly (the rival among them), in random order, with the answer at `position`."""
    others = [label for label in kind.labels if label not in (item.answer, item.rival)]
    wanted = kind.choices - 1 - (item.rival is not None)
    wrong = [others[int(i)] for i in deck.rng.choice(len(others), wanted, replace=False)]
    wrong = [*wrong, item.rival] if item.rival else wrong
    wrong = [wrong[int(i)] for i in deck.rng.permutation(len(wrong))]
    return (*wrong[:position], item.answer, *wrong[position:])
