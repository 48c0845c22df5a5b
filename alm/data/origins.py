"""Where a clip comes from, in one spelling for all data sets: `youtube:<11 characters>`, `freesound:<number>`, `clotho:<name>`, …

Data sets are cut from the same sources (AudioCaps, WavCaps, MusicBench and CompA-R from AudioSet's videos, ClothoAQA from Clotho), so
that a clip of a test set turns up in another's training set, under another name or altered. Readers put the origins of a clip into
`meta["origins"]`; `alm.data.leaks` compares them.
"""

import html
import re
import unicodedata
from pathlib import PurePosixPath
from typing import Any

ORIGINS = "origins"
"""The key in an example's `meta`: a list of origins, absent where none is known."""
_YOUTUBE_NAME = re.compile(r"Y?([\w-]{11})(?:_[\d._-]+)?", re.ASCII)
_YOUTUBE_URL = re.compile(r"(?:[?&]v=|youtu\.be/|/shorts/|/embed/)([\w-]{11})", re.ASCII)
_BILIBILI = re.compile(r"(?<![A-Za-z0-9])(BV[A-Za-z0-9]{10})(?![A-Za-z0-9])")
_CHAPTER = re.compile(r"(\d+)[-_](\d+)[-_]\d+(?:[-_]\d+)?")


def youtube(video_id: str) -> list[str]:
    """The origin of a video's id; none where it has no 11 characters."""
    return [f"youtube:{video_id}"] if re.fullmatch(r"[\w-]{11}", video_id, re.ASCII) else []


def youtube_of_name(name: str) -> list[str]:
    """The origin of a file named after a video: `<id>.wav`, `Y<id>.wav`, `<id>_<start>.wav`, and altered copies `<id>_<n>.wav`."""
    found = _YOUTUBE_NAME.fullmatch(stem(name))
    return [f"youtube:{found[1]}"] if found else []


def video_of_url(url: str) -> list[str]:
    """The origin of an address of YouTube or Bilibili."""
    found, other = _YOUTUBE_URL.search(url), _BILIBILI.search(url)
    return [f"youtube:{found[1]}"] if found else [f"bilibili:{other[1]}"] if other else []


def freesound(sound_id: Any) -> list[str]:
    """The origin of a sound's number (`"1234"`, `1234`, `"1234.flac"`)."""
    number = stem(str(sound_id))
    return [f"freesound:{number}"] if number.isdecimal() else []


def clotho(file_name: str) -> list[str]:
    """The origin of a file of Clotho, by name: only for comparing, so without the blanks and entities that copies differ in."""
    name = unicodedata.normalize("NFC", html.unescape(stem(file_name)))
    return [f"clotho:{' '.join(name.split())}"]


def librivox(utterance_id: str) -> list[str]:
    """The origin of an utterance of LibriSpeech (`1089-134686-0000`) or LibriTTS (`1089_134686_000001_000001`): reader and chapter.

    The two cut the same recordings at different places.
    """
    found = _CHAPTER.fullmatch(utterance_id)
    return [f"librivox:{found[1]}-{found[2]}"] if found else []


def meta_of(origins: list[str], **meta: Any) -> dict[str, Any]:
    """An example's `meta` with its origins, where there are any."""
    return {**meta, **({ORIGINS: origins} if origins else {})}


def stem(name: str) -> str:
    """File name without folders and without an audio file's suffix; nothing is stripped."""
    last = PurePosixPath(name).name
    return re.sub(r"\.(wav|flac|mp3|ogg|opus|m4a|aac|npy)$", "", last, flags=re.IGNORECASE)
