"""A model's reply → the four dimensions of a caption, checked → one paragraph. What breaks a rule never becomes a caption."""

import json
import re
from typing import Any, NamedTuple

from alm.captioning.prompts import DIMENSIONS, OMITTED, Kind

MAX_CHARACTERS = 800
"""Limit of one dimension: a longer text is a model that loops."""
ORDER = {
    "speech": ("speaker", "environment", "events"),
    "music": ("music", "environment", "events"),
    "sound": ("events", "environment", "speaker", "music"),
}
"""Contents, and the order in which their dimensions make the paragraph: that of the paper's Figures 4 to 6."""
_THOUGHTS = re.compile(r"<think>.*?(</think>|\Z)", re.DOTALL)
_EMPTY = re.compile(r"(n/?a|none|null|nil|unknown|not applicable|omitted|-+|\.*|…)\.?", re.IGNORECASE)
_NEGATED = re.compile(
    r"\b(no|not|without|nor|neither|never|absen(t|ce)|free (of|from)|lack(s|ing)?)\b|n't\b", re.IGNORECASE
)
_FOREIGN = {
    "music": re.compile(r"\b(music|melody|melodies|soundtrack|bpm)\b", re.IGNORECASE),
    # not the loudspeaker, nor "the left speaker" of a stereo image
    "speaker": re.compile(
        r"(?<!left )(?<!right )(?<!both )(?<!stereo )\b(speakers?|narrators?|narration|spoken words?|speech|talking)\b",
        re.IGNORECASE,
    ),
}
_SECONDS = re.compile(r"(\d+(?:\.\d+)?)\s*(?:s|secs?|seconds?)\b", re.IGNORECASE)


class StructureError(ValueError):
    """A reply that cannot become a caption; the message is the reason, as the model is told it."""


class Description(NamedTuple):
    """A clip along the four dimensions of C.2; the one that `content` leaves out is None."""

    content: str
    speaker: str | None
    environment: str | None
    music: str | None
    events: str | None

    def caption(self) -> str:
        """The dimensions as one paragraph."""
        return " ".join(getattr(self, name) for name in ORDER[self.content])


def parse(reply: str, kind: Kind, seconds: float) -> Description:
    """Read and check a reply about a clip of `seconds`.

    Text around the JSON object (thoughts, code fences) and further keys in it are passed over. Raises `StructureError` for no JSON
    object, a content that is none of `ORDER`, a dimension that is missing, empty or over `MAX_CHARACTERS`, the dimension
    that the content leaves out, its subject turning up in another dimension, and times after the clip's end.
    """
    found = _find_object(reply)
    content = _content(found, kind)
    texts = {name: _text(found, name) for name in DIMENSIONS if name != OMITTED.get(content)}
    left_out = OMITTED.get(content)
    if left_out:
        _check_left_out(found.get(left_out), left_out, content, texts)
    late = [time for time in _SECONDS.findall(texts["events"]) if float(time) > seconds + 1]
    if late:
        raise StructureError(f'"events" names second {late[0]}, but the clip ends after {seconds:.1f} seconds')
    return Description(content, *(texts.get(name) for name in DIMENSIONS))


def with_transcript(caption: str, transcript: str) -> str:
    """The caption with the transcript appended, as the paper does for LibriSpeech and LibriTTS."""
    return f"{caption} Transcript: {one_line(transcript)}"


def one_line(text: str) -> str:
    """`text` with every run of white space and control characters as one space."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _find_object(reply: str) -> dict[str, Any]:
    """The first JSON object with one of our keys."""
    decoder, text = json.JSONDecoder(), _THOUGHTS.sub("", reply)
    at = text.find("{")
    while at >= 0:
        try:
            found, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            end = at + 1
        else:
            if isinstance(found, dict) and DIMENSIONS.keys() & found.keys():
                return found
        at = text.find("{", end)
    cut = "it breaks off inside the JSON object" if "{" in text else "there is no JSON object in it"
    raise StructureError(f"{cut} with the keys {', '.join(DIMENSIONS)}")


def _content(found: dict[str, Any], kind: Kind) -> str:
    if kind != "auto":
        return kind
    content = found.get("content")
    if not isinstance(content, str) or content.strip().lower() not in ORDER:
        raise StructureError(f'"content" must be one of {", ".join(ORDER)}, not {json.dumps(content)[:80]}')
    return content.strip().lower()


def _text(found: dict[str, Any], name: str) -> str:
    value = found.get(name)
    if value is not None and not isinstance(value, str):
        raise StructureError(f'"{name}" must be a text, not {json.dumps(value)[:80]}')
    text = one_line(value or "")
    if _EMPTY.fullmatch(text):
        raise StructureError(f'"{name}" is missing or empty ({DIMENSIONS[name]})')
    if len(text.split()) < 3:
        raise StructureError(f'"{name}" must be a sentence, not {json.dumps(text)}')
    if len(text) > MAX_CHARACTERS:
        raise StructureError(
            f'"{name}" has {len(text)} characters; three sentences, at most {MAX_CHARACTERS}, are wanted'
        )
    if text in DIMENSIONS.values():
        raise StructureError(f'"{name}" repeats the question')
    return text[0].upper() + text[1:] + ("" if text[-1] in ".!?\"”'’)" else ".")


def _check_left_out(value: Any, name: str, content: str, others: dict[str, str]) -> None:
    empty = value is None or value in ({}, []) or (isinstance(value, str) and _EMPTY.fullmatch(one_line(value)))
    if not empty:
        raise StructureError(f'"{name}" must be null or left out for a clip of {content} only')
    subject = {"speech": "speaker", "music": "music"}[
        content
    ]  # where the words of the other may stand: "spoken to music"
    for other, text in others.items():
        stated = [s for s in re.split(r"(?<=[.!?;])\s", text) if _FOREIGN[name].search(s) and not _NEGATED.search(s)]
        if other != subject and stated:
            raise StructureError(
                f'"{other}" tells of {"music" if name == "music" else "somebody who talks"} in a clip of {content} only: '
                f"{json.dumps(stated[0][:120], ensure_ascii=False)}"
            )
