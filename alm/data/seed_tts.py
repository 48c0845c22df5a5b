"""Lists of utterances to synthesise: SEED-TTS-eval's `meta.lst` in its published forms, and two lists of others.

Fields between "|" (https://github.com/BytedanceSpeech/seed-tts-eval): `id|text`, `id|text|prompt_wav`, `id|prompt_text|prompt_wav|text`
and `id|prompt_text|prompt_wav|text|wav`. Between tabs: ZipVoice's `id, prompt_text, prompt_wav, text`, and F5-TTS' list over LibriSpeech
(`prompt_id, seconds, prompt_text, id, seconds, text`). Texts are kept bit for bit but for blanks at a line's ends.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from alm.data.example import DataError
from alm.data.json_rows import read_text

FORMS = (
    "id|text, id|text|prompt_wav, id|prompt_text|prompt_wav|text[|wav], or with tabs: id, prompt_text, prompt_wav, text "
    "(ZipVoice), or prompt_id, seconds, prompt_text, id, seconds, text (F5-TTS)"
)


@dataclass(frozen=True)
class Utterance:
    """A text to be spoken. What a list does not state, or leaves empty, is None; audio paths are as written."""

    id: str
    text: str
    prompt_text: str | None = None
    prompt_audio: str | None = None
    reference_audio: str | None = None


@dataclass(frozen=True)
class UtteranceList:
    """The utterances in file order, and the SHA-256 of the file."""

    items: tuple[Utterance, ...]
    sha256: str


def read(path: Path | str) -> UtteranceList:
    """Read a list. Raises `DataError`, with file and line, for another form, an empty text, and an id that is repeated or no file name."""
    path = Path(path)
    items: dict[str, Utterance] = {}
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        item = _utterance(line.strip(), f"{path}, line {number}")
        if item.id in items:
            raise DataError(
                f"{path}, line {number}: id {item.id!r} occurs twice; its two sounds would be one file, {item.id}.wav"
            )
        items[item.id] = item
    if not items:
        raise DataError(f"{path}: no utterances in it; lines read {FORMS}")
    return UtteranceList(tuple(items.values()), hashlib.sha256(path.read_bytes()).hexdigest())


def _utterance(line: str, where: str) -> Utterance:
    # a list with tabs may have "|" in its texts, and the reverse
    item = _by_tabs(line.split("\t")) if "\t" in line else _by_bars(line.split("|"))
    if item is None:
        raise DataError(f"{where}: {line[:60]!r} has none of the known forms: {FORMS}")
    if not item.text.strip():
        raise DataError(f"{where}: no text to be spoken")
    if not item.id or PurePosixPath(item.id).is_absolute() or ".." in PurePosixPath(item.id).parts:
        raise DataError(f"{where}: the id {item.id!r} cannot name a file in the folder of the sounds")
    return item


def _by_bars(fields: Sequence[str]) -> Utterance | None:
    match fields:
        case [name, text]:
            return Utterance(_id(name), text)
        case [name, text, prompt]:
            return Utterance(_id(name), text, prompt_audio=prompt or None)
        case [name, said, prompt, text, *reference] if len(reference) <= 1:
            return Utterance(_id(name), text, said or None, prompt or None, (reference or [""])[0] or None)
    return None


def _by_tabs(fields: Sequence[str]) -> Utterance | None:
    match fields:
        case [name, said, prompt, text]:
            return Utterance(_id(name), text, said or None, prompt or None)
        case [prompt_id, _, said, name, _, text]:
            return Utterance(name, text, said, _librispeech(prompt_id), _librispeech(name))
    return None


def _id(name: str) -> str:
    return name.removesuffix(".wav")


def _librispeech(name: str) -> str:
    """`4992-41806-0009` lies in `4992/41806/`."""
    return "/".join([*name.split("-")[:2], f"{name}.flac"])
