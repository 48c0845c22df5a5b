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
        *(Voice(v, "woman") for v in ("f1", "steph", "steph2", "Annie", "aunty")),
    ),
    "test": (
        *(Voice(v, "man") for v in ("m2", "m6", "m8")),
        *(Voice(v, "woman") for v in ("f4", "linda", "belinda")),
    ),
}
ACCENTS = {"en-us": "an American", "en-gb-x-rp": "a British"}
"""espeak-ng language → how a caption names the accent."""
PITCHES = {"man": (32, 48), "woman": (56, 74)}
"""espeak-ng pitch by sex: men come out at 70 to 100 Hz, women at 180 to 300."""

WORDS = ("banana", "coffee", "window", "tiger", "umbrella", "football", "cheese", "garden", "spoon", "seashell")
"""The closed list of keywords, shared by train and test."""

CARRIERS = {
    "train": ("The {0}. The {0}.", "{0}! My {0}.", "{0}! See the {0}.", "Yes, {0}. {0}.", "{0}, {0}.", "Say {0}. {0}!"),
    "test": ("The word {0}. {0}.", "{0}. One {0}.", "I said {0}. {0}!"),
}
"""Short utterances around a keyword, which is said twice, as a language course does."""
SENTENCES = {
    "train": (
        "Can you see the {} over there?",
        "I really like the {} a lot.",
        "They found the {} in town.",
        "She drew the {} for us today.",
        "The old {} was very nice.",
    ),
    "test": ("Where have you seen the {}?", "He bought the {} for his friend.", "This {} is better than mine."),
}
"""Longer sentences, by which the speaking rate is told."""
PHRASES = {
    "train": (
        *("Good morning.", "How are you?", "Nice to see you.", "Thank you.", "See you soon.", "Come with me."),
        *("I agree.", "That is all."),
    ),
    "test": ("Hello again.", "What a day.", "Time to go.", "Not so fast.", "Very well."),
}
"""Short turns of conversations."""

WORD_RATE, TURN_RATE = (150, 170), (190, 220)
"""espeak-ng words per minute of the carriers and of the turns."""
RATES = {"slow": (112, 122), "normal": (185, 200), "fast": (320, 350)}
"""Label of the speaking rate → words per minute."""
