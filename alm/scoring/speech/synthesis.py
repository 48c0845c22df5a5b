"""A list's texts as requests to speak them."""

from collections.abc import Sequence
from pathlib import Path

from alm.data.example import Content, DataError
from alm.data.seed_tts import Utterance
from alm.prompts import SPEECH_REQUEST, speech_messages
from alm.scoring.synthesis import Request, own_seed

PROMPT_IDS = {False: repr(SPEECH_REQUEST), True: f"{SPEECH_REQUEST!r}, after the same of the prompt and its clip"}
"""Names what the model reads, without and with the list's prompt."""


def requests(items: Sequence[Utterance], prompts: Path | None, seed: int) -> list[Request]:
    """What the model is asked: with the prompts (relative ones below the folder `prompts`), or without where it is None.

    Raises `DataError` where a prompt is wanted and lacks clip or text.
    """
    return [
        Request(item.id, speech_messages(item.text, _voice(item, prompts)), own_seed(seed, item.id)) for item in items
    ]


def _voice(item: Utterance, prompts: Path | None) -> tuple[Content, str] | None:
    if prompts is None:
        return None
    if item.prompt_audio is None or item.prompt_text is None:
        raise DataError(
            f"{item.id}: the list gives no prompt with its text; without --zero_shot the text is spoken alone"
        )
    return {"type": "audio", "path": prompts / item.prompt_audio}, item.prompt_text
