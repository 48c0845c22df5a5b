"""Requests answered in sound by a checkpoint: a WAV file and a row each, so that a run that is killed goes on from there."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from alm.checkpoint import LoadedCheckpoint
from alm.data.example import Content, Message
from alm.generation.sampling import Sampling
from alm.generation.tasks import Sound, generate_audio
from alm.scoring.clips import file_digest
from alm.scoring.item_log import ItemLog, Row
from alm.scoring.manifest import weights_digest
from alm.scoring.processes import Processes
from alm.scoring.sound.systems import CodecSystem
from alm.vocabulary import digest


class Request(NamedTuple):
    """A conversation to be answered in sound. Audio in it is given by path; `id` names the sound's file."""

    id: str
    messages: list[Message]
    seed: int

    @property
    def digest(self) -> str:
        """Over everything that the model is given: texts, the bytes of files, the seed."""
        parts = [(item.get("text"), "path" in item and file_digest(Path(item["path"]))) for item in self._items()]
        return digest([[message["role"] for message in self.messages], parts, self.seed])

    @property
    def characters(self) -> int:
        """Length of its texts."""
        return sum(len(item.get("text", "")) for item in self._items())

    def _items(self) -> Iterator[Content]:
        for message in self.messages:
            yield from message["content"]


@dataclass(frozen=True)
class SynthesisSettings:
    """How requests are answered.

    Args:
        prompt_id: names what the model reads.
        unconditional: the conversation that a `guidance_scale` above 1 pushes away from.
    """

    prompt_id: str
    unconditional: Sequence[Message]
    sampling: Sampling
    min_seconds: float
    max_seconds: float
    guidance_scale: float = 1.0

    def decoding(self, model: Any) -> dict[str, Any]:
        """For the result and the resume key."""
        return {
            **asdict(self.sampling),
            "min_seconds": self.min_seconds,
            "max_seconds": self.max_seconds,
            "guidance_scale": self.guidance_scale,
            "dtype": str(model.dtype),
        }


def own_seed(seed: int, name: str) -> int:
    """A request's own seed, drawn from the run's and its id: neither order, `--limit` nor batches decide what it draws."""
    return int.from_bytes(hashlib.sha256(f"{seed} {name}".encode()).digest()[:6])


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
    processes: Processes,
) -> dict[str, Row]:
    """Answer what `log` does not hold yet; rows by id, each of a file `folder/<id>.wav`.

    Longest texts first: what lasts about as long is answered together, and the time left is never told too short. Batches are cut
    from all requests and not from what is left of them: a resumed run computes the same batches and so the same sounds, as do several
    processes.
    """
    digests = {one.id: one.digest for one in asked}
    kept = {one.id for one in asked if is_kept(log.rows.get(one.id), digests[one.id], folder)}
    order = sorted(asked, key=lambda one: -one.characters)
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    for batch in processes.share(batches, "synthesis", "sound"):
        if not {one.id for one in batch} <= kept:
            sounds = zip(batch, _answer(checkpoint, batch, settings), strict=True)
            new = [(one.id, sound) for one, sound in sounds if one.id not in kept]
            log.append([_keep(folder, name, sound) | {"request": digests[name]} for name, sound in new])
    processes.collect(log, [one.id for one in order])
    return {one.id: log.rows[one.id] for one in asked}


def is_kept(row: Row | None, request: str, folder: Path) -> bool:
    """Whether a row is of this request and its file still the one that was written."""
    if row is None or row["request"] != request:
        return False
    path = folder / f"{row['id']}.wav"
    return path.is_file() and file_digest(path) == row["audio"]


def _answer(checkpoint: LoadedCheckpoint, batch: Sequence[Request], settings: SynthesisSettings) -> list[Sound]:
    return generate_audio(
        *checkpoint,
        [one.messages for one in batch],
        settings.unconditional,
        settings.min_seconds,
        settings.max_seconds,
        settings.sampling,
        settings.guidance_scale,
        seed=[one.seed for one in batch],
        batch_size=len(batch),
    )


def _keep(folder: Path, name: str, sound: Sound) -> Row:
    """Write a sound, whole or not at all, and return its row."""
    path = folder / f"{name}.wav"
    temporary = path.with_name(f".{name}.tmp.wav")  # of a run that was killed the next one overwrites it
    sound.save(temporary)
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.replace(path)
    return {"id": name, "audio": file_digest(path), "seconds": sound.seconds, "stopped": not sound.forced_end}
