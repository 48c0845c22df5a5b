"""The instruction that asks an audio model for a rich caption along the paper's four dimensions (appendix C.2).

The paper names the dimensions, their attributes and what is left out; it does not print its prompt. Ours asks for one JSON object with a
text for each dimension, so that a reply can be checked before it becomes a caption (`alm.captioning.structure`).
"""

from typing import Literal

from alm.vocabulary import digest

Kind = Literal["auto", "speech", "music", "sound"]
KINDS: tuple[Kind, ...] = ("auto", "speech", "music", "sound")
"""`speech` and `music`: nothing else is in the clip; `sound`: anything else, mixtures too; `auto`: the model says which."""
PROMPT_ID = "captions-v1"

DIMENSIONS = {
    "speaker": "speaker attributes: gender, estimated age, accent, speaking style, emotional state",
    "environment": "acoustic environment: indoors or outdoors, how reverberant, which background noise there is and how much",
    "music": "musical attributes: tempo, key, instrumentation, mood, dynamics",
    "events": "sound events: what is heard, about when each begins and ends (in seconds), where it is or how it moves in space",
}
"""The four dimensions of C.2 with their attributes, in its order."""
OMITTED = {"speech": "music", "music": "speaker"}
"""The rule of C.2: speech-only clips have no musical attributes, music-only clips no speaker attributes."""
_WHAT = {
    "speech": "It holds speech and no music. Say nothing about music.",
    "music": "It holds music and nobody talks. Say nothing about a speaker; singing belongs to the music.",
    "sound": "It may hold any sounds, speech and music. Where there is no speech or no music, say so in one short sentence.",
    "auto": "First decide what is in it.",
}
_CONTENT = (
    '- "content": "speech" if people talk and there is no music; "music" if there is music (singing included) and nobody talks; '
    '"sound" for everything else and for mixtures. For "speech" the value of "music" must be null, for "music" the value of '
    '"speaker" must be null; for "sound" all four are texts, and where there is no speech or no music the text says so.\n'
)
_RULES = (
    "Each text is one to three plain English sentences that can be read without the others. State only what can be heard; "
    "where an attribute cannot be told, leave it out. Do not write out what is said."
)
_REPAIR = "That reply cannot be used: {reason}. Send the whole JSON object again, corrected, and nothing else."


def instruction(kind: Kind, seconds: float) -> str:
    """What the model is asked, after the audio, about a clip of `seconds`."""
    wanted = {name: text for name, text in DIMENSIONS.items() if name != OMITTED.get(kind)}
    keys = "".join(f'- "{name}": {text}\n' for name, text in wanted.items())
    return (
        f"Listen to this clip of {seconds:.1f} seconds from beginning to end and describe it. {_WHAT[kind]}\n"
        "Answer with one JSON object and nothing else. Its keys:\n"
        f"{_CONTENT if kind == 'auto' else ''}{keys}{_RULES}"
    )


def repair(reason: str) -> str:
    """What the model is told after a reply that broke a rule."""
    return _REPAIR.format(reason=reason)


def prompt_hash() -> str:
    """16 hexadecimal digits over every text a model may be given: captions of different texts are never mixed."""
    return digest([*(instruction(kind, 1.0) for kind in KINDS), _REPAIR])
