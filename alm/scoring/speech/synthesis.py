"""A list's texts spoken by a checkpoint: a WAV file and a row each, so that a run that is killed goes on from there."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from alm.checkpoint import LoadedCheckpoint
from alm.data.example import DataError
from alm.data.seed_tts import Utterance
from alm.generation.sampling import Sampling
from alm.generation.tasks import generate_audio
from alm.prompts import SPEECH_REQUEST, speech_messages
from alm.scoring.item_log import ItemLog, Row
from alm.scoring.manifest import weights_digest
from alm.scoring.sound.systems import CodecSystem
from alm.vocabulary import digest
from codec.audio import read_bytes


class Request(NamedTuple):
    """A text to be spoken, after the example of `voice` (a clip, and what is said in it) where there is one."""

    id: str
    text: str
    voice: tuple[Path, str] | None
    seed: int

    @property
    def digest(self) -> str:
        """Over everything that the model is given."""
        voice = self.voice and (file_digest(self.voice[0]), self.voice[1])
        return digest([self.text, voice, self.seed])


@dataclass(frozen=True)
class SynthesisSettings:
    """How requests are spoken."""

    sampling: Sampling
    min_seconds: float
    max_seconds: float
    zero_shot: bool
    """Each text after its own prompt; otherwise the text alone."""

    @property
    def prompt_id(self) -> str:
        """Names what the model reads."""
        return f"{SPEECH_REQUEST!r}{', after the same of the prompt and its clip' if self.zero_shot else ''}"

    def decoding(self, model: Any) -> dict[str, Any]:
        """For the result and the resume key."""
        return {
            **asdict(self.sampling),
            "min_seconds": self.min_seconds,
            "max_seconds": self.max_seconds,
            "dtype": str(model.dtype),
        }


def requests(items: Sequence[Utterance], prompts: Path | None, seed: int) -> list[Request]:
    """What the model is asked: with the prompts (relative ones below the folder `prompts`), or without where it is None.

    A request's own seed is drawn from `seed` and its id, so that neither order, `--limit` nor batches decide what it draws.
    Raises `DataError` where a prompt is wanted and lacks clip or text.
    """
    made = []
    for item in items:
        voice = None
        if prompts is not None:
            if item.prompt_audio is None or item.prompt_text is None:
                raise DataError(
                    f"{item.id}: the list gives no prompt with its text; without --zero_shot the text is spoken alone"
                )
            voice = prompts / item.prompt_audio, item.prompt_text
        own = int.from_bytes(hashlib.sha256(f"{seed} {item.id}".encode()).digest()[:6])
        made.append(Request(item.id, item.text, voice, own))
    return made


def identity(checkpoint: LoadedCheckpoint, settings: SynthesisSettings) -> dict[str, Any]:
    """Everything but the requests that decides a sound: weights, tokenizer, vocabulary, codec with its decoder, prompt, settings."""
    model, processor = checkpoint
    tokenizer = processor.tokenizer.backend_tokenizer.to_str()
    codec = CodecSystem(processor.require_codec(), processor.codec_reference or "").identity
    return {
        "weights": weights_digest(model),
        "vocabulary": processor.vocabulary.hash,
        "tokenizer": hashlib.sha256(tokenizer.encode()).hexdigest()[:16],
        "codec": codec["codec"],
        "codec_weights": codec["weights"],
        "prompt_id": settings.prompt_id,
        "decoding": settings.decoding(model),
    }


def synthesise(
    checkpoint: LoadedCheckpoint,
    asked: Sequence[Request],
    settings: SynthesisSettings,
    log: ItemLog,
    folder: Path,
    batch_size: int,
) -> dict[str, Row]:
    """Speak what `log` does not hold yet; rows by id, each of a file `folder/<id>.wav`.

    Longest texts first: what lasts about as long is spoken together, and the time left is never told too short.
    """
    waiting = sorted((one for one in asked if one.id not in log.rows), key=lambda one: -len(one.text))
    with tqdm(total=len(asked), initial=len(asked) - len(waiting), desc="speaking", unit="utterance") as bar:
        for start in range(0, len(waiting), batch_size):
            some = waiting[start : start + batch_size]
            log.append(_speak(checkpoint, some, settings, folder))
            bar.update(len(some))
    return {one.id: log.rows[one.id] for one in asked}


def still_there(asked: Sequence[Request], folder: Path) -> Callable[[Row], bool]:
    """Whether a row of a former run is of the same request, and its file still the one that was written; for `ItemLog`."""
    wanted = {one.id: one.digest for one in asked}

    def holds(row: Row) -> bool:
        path = folder / f"{row['id']}.wav"
        same = row["request"] == wanted.get(row["id"], row["request"])
        return same and path.is_file() and file_digest(path) == row["audio"]

    return holds


def file_digest(path: Path) -> str:
    """16 hexadecimal digits of SHA-256. Raises `AudioError` for a file that cannot be read."""
    return hashlib.sha256(read_bytes(path)).hexdigest()[:16]


def _speak(
    checkpoint: LoadedCheckpoint, some: Sequence[Request], settings: SynthesisSettings, folder: Path
) -> list[Row]:
    messages = [
        speech_messages(one.text, one.voice and ({"type": "audio", "path": one.voice[0]}, one.voice[1])) for one in some
    ]
    sounds = generate_audio(
        *checkpoint,
        messages,
        speech_messages(""),
        settings.min_seconds,
        settings.max_seconds,
        settings.sampling,
        seed=[one.seed for one in some],
        batch_size=len(some),
    )
    rows = []
    for one, sound in zip(some, sounds, strict=True):
        path = folder / f"{one.id}.wav"
        sound.save(path)
        row = {"id": one.id, "request": one.digest, "audio": file_digest(path), "stopped": not sound.forced_end}
        rows.append(row)
    return rows
