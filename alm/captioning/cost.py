"""What captioning will take, told before it begins: requests, audio, tokens and, with a price, money."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from alm.captioning.inputs import SourceClip
from alm.captioning.prompts import instruction
from codec.audio import AudioError, read_header

CHARACTERS_PER_TOKEN = 4
"""Of English text, about, in the vocabularies of today's models."""
ANSWER_TOKENS = 200
"""About: the paper's example captions have 80 to 100 CLIP tokens, the JSON around ours and longer texts the rest."""
BYTES_PER_SAMPLE = 2 * 4 / 3
"""16-bit samples as base64."""


class Estimate(NamedTuple):
    """Of the clips still to do. `unknown` headers state no length, `unreadable` are no audio: both count no seconds."""

    clips: int
    seconds: float
    unknown: int
    unreadable: int
    prompt_tokens: int
    answer_tokens: int
    megabytes: float


def estimate(
    clips: Sequence[SourceClip],
    audio_tokens_per_second: float,
    sampling_rate: int,
    max_seconds: float | None = None,
    workers: int = 2,
) -> Estimate:
    """Estimate from the headers, at one request per clip; `audio_tokens_per_second` is the model's."""
    with ThreadPoolExecutor(workers) as pool:
        found = list(pool.map(_seconds, clips))
    known = [min(value, max_seconds or value) for value in found if value is not None and value == value]
    unreadable = sum(value is None for value in found)
    text = sum(len(instruction(clip.kind, 10.0)) for clip in clips) / CHARACTERS_PER_TOKEN
    seconds = sum(known)
    return Estimate(
        len(clips),
        seconds,
        len(found) - len(known) - unreadable,
        unreadable,
        round(text + seconds * audio_tokens_per_second),
        ANSWER_TOKENS * (len(clips) - unreadable),
        seconds * sampling_rate * BYTES_PER_SAMPLE / 1e6,
    )


def money(prompt_tokens: float, answer_tokens: float, price_per_million: Sequence[float]) -> float:
    """Cost at the prices of a million prompt tokens and of a million answer tokens (one price: of both)."""
    return (prompt_tokens * price_per_million[0] + answer_tokens * price_per_million[-1]) / 1e6


def render(it: Estimate, retries: int, price_per_million: Sequence[float] = (), upload: bool = False) -> str:
    """The estimate as text."""
    lines = [
        f"{it.clips:,} clips to caption, {it.seconds / 3600:,.2f} hours of audio ({it.seconds:,.0f} s)"
        + (f"; {it.unknown:,} of unknown length, not counted" if it.unknown else "")
        + (f"; {it.unreadable:,} unreadable" if it.unreadable else ""),
        f"{it.clips - it.unreadable:,} requests, at most {1 + retries} for each clip where replies break a rule",
        f"about {it.prompt_tokens:,} prompt tokens (audio included) and {it.answer_tokens:,} answer tokens",
    ]
    if upload:
        lines.append(f"about {it.megabytes:,.1f} MB to send")
    if price_per_million:
        once = money(it.prompt_tokens, it.answer_tokens, price_per_million)
        lines.append(
            f"about {once:,.2f} in the currency of the price; {once * (1 + retries):,.2f} if every reply took all retries"
        )
    return "\n".join(lines)


def _seconds(clip: SourceClip) -> float | None:
    try:
        return read_header(clip.path).seconds
    except AudioError:
        return None
