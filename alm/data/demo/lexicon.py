"""Who speaks and what is said: voices, words and carrier sentences, the train and the test ones disjoint."""

from typing import NamedTuple


class Voice(NamedTuple):
    """An espeak-ng voice: a base accent with one of the library's variants, whose sex its file states."""

    variant: str
    sex: str  # "man" or "woman"


# Variants with `breath` (f2, f3, f5, victor, …) are left out: they read memory that the library does not initialise, and sound
# different in every process. anika, Andrea and antonio are left out too: they speak 1.3 times faster than the others at one rate.
VOICES = {
    "train": (
        *(Voice(v, "man") for v in ("m1", "m3", "m4", "m5", "m7", "Denis", "michel", "Storm")),
        *(Voice(v, "woman") for v in ("f1", "linda", "belinda", "Annie", "aunty")),
    ),
    "test": (
        *(Voice(v, "man") for v in ("m2", "m6", "m8")),
        *(Voice(v, "woman") for v in ("f4", "grandma", "steph2")),
    ),
}
ACCENTS = {"en-us": "an American", "en-gb-x-rp": "a British", "en-gb-scotland": "a Scottish"}
"""espeak-ng language → how a caption names the accent."""

WORDS = (
    *("coffee", "mountain", "tiger", "window", "station", "banana", "doctor", "umbrella", "football", "paper"),
    *("chicken", "garden", "island", "elephant", "yoghurt", "zebra"),
)
"""The closed list of keywords, shared by train and test."""

CARRIERS = {
    "train": (
        "Can you see the {}?",
        "I like the {} a lot.",
        "Look at the {} now.",
        "They found the {}.",
        "She drew the {} today.",
        "The {} is here.",
        "We saw a big {}.",
        "The old {} was nice.",
    ),
    "test": ("Where is the {}?", "He bought the {} for us.", "The {} is over there.", "This is my {}."),
}
PHRASES = {
    "train": (
        "Good morning.",
        "How are you?",
        "Nice to see you.",
        "Thank you.",
        "See you soon.",
        "Come with me.",
        "I agree.",
    ),
    "test": ("Hello again.", "What a day.", "Time to go.", "Not so fast.", "Very well."),
}
"""Short turns of conversations."""

RATES = {"slow": (98, 112), "normal": (170, 190), "fast": (300, 340)}
"""Rate label → espeak-ng words per minute."""
TURN_RATE = (200, 230)


def normalized(text: str) -> str:
    """The text as LibriTTS's `.normalized.txt` has it; these sentences hold no numbers or abbreviations to spell out."""
    return text
