"""Rows of sounds to a row of figures for each caption: the system's, and those of what shows whether the figures mean anything."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from alm.data.caption_lists import Captioned, others
from alm.data.example import DataError
from alm.scoring.item_log import Row
from alm.scoring.processes import Processes
from alm.scoring.sound.distributions import kl_divergence
from alm.scoring.text_to_audio.hearing import Listener, unpack
from codec.audio import AudioError

Figures = dict[str, float | None]
CONTROLS = {
    "ground_truth": "the data set's recordings with their captions; Fréchet distances: between two halves of them",
    "shuffled_captions": "the system's sounds with captions of other clips",
    "noise": "white noise as long and as loud (root mean square) as each of the system's sounds",
    "silence": "ten seconds of zeros",
}


class Take(NamedTuple):
    """A sound of the system: its file, and whether the model ended it by itself (where that is known)."""

    path: Path
    stopped: bool | None = None


@dataclass(frozen=True)
class Scored:
    """A row of figures a caption, and rows of sounds for what compares sets: of the system, of the recordings by clip, of noise.

    `missing` are the captions without a usable sound, `lost` the recordings that cannot be read, each with the reason.
    """

    rows: list[Row]
    made: list[Row]
    recordings: list[Row]
    noise: list[Row]
    missing: dict[str, str]
    lost: dict[str, str]


def hear(
    items: Sequence[Captioned],
    takes: Mapping[str, Take],
    recordings: Mapping[str, Path],
    listener: Listener,
    controls: bool,
    processes: Processes,
) -> None:
    """Of several processes, let each hear its share of what `score` looks up; one alone hears it there."""
    if processes.number == 1:
        return
    clips = dict.fromkeys(item.clip for item in items)
    sounds: list[Callable[[], object]] = [
        partial(listener.file, "recording", clip, recordings[clip]) for clip in clips if clip in recordings
    ]
    for item in items:
        sounds.append(partial(listener.text, item.caption))
        if item.id in takes:
            sounds.append(partial(listener.file, "made", item.id, takes[item.id].path))
            sounds += [partial(listener.noise, item.id, takes[item.id].path)] * controls
    for (sound,) in processes.share([(sound,) for sound in sounds], "hearing", "sound"):
        with suppress(AudioError):  # told when it is scored
            sound()
    processes.collect(listener.log, [])


def score(
    items: Sequence[Captioned],
    takes: Mapping[str, Take],
    recordings: Mapping[str, Path],
    listener: Listener,
    controls: bool,
    max_missing: float,
) -> Scored:
    """Hear everything and compute the figures of each caption.

    A sound that is missing or cannot be read is scored as silence and counted: a system gains nothing by leaving one out. Raises
    `DataError` where more than the share `max_missing` of them is missing.
    """
    missing = {item.id: "no such file" for item in items if item.id not in takes}
    _require(missing, len(items), max_missing)
    truth, lost = _hear_recordings(items, recordings, listener)
    silence, other = listener.silence(), others(items) if controls else {}
    rows, made, noises = [], [], []
    for item in tqdm(items, desc="hearing sounds", unit="sound"):
        sound, noise = silence, None
        if item.id not in missing:
            try:
                sound = listener.file("made", item.id, takes[item.id].path)
                noise = listener.noise(item.id, takes[item.id].path) if controls else None
            except AudioError as error:
                missing[item.id] = str(error)
                _require(missing, len(items), max_missing)
        text, recording = listener.text(item.caption), truth.get(item.clip)
        found = figures(sound, text, recording)
        if item.id not in missing:
            found |= {"seconds": sound["seconds"]}
            stopped = takes[item.id].stopped
            found |= {} if stopped is None else {"stop_rate": float(stopped)}
        beside = {
            "ground_truth": recording and figures(recording, text, None),
            "shuffled_captions": item.id in other and _fit(sound, listener.text(other[item.id])),
            "noise": noise and figures(noise, text, recording),
            "silence": figures(silence, text, recording),
        }
        rows.append(
            {
                "id": item.id,
                "clip": item.clip,
                "caption": item.caption,
                "missing": missing.get(item.id),
                "scores": found,
                "controls": {name: one for name, one in beside.items() if one} if controls else {},
            }
        )
        made.append(sound)
        noises += [] if noise is None else [noise]
    return Scored(rows, made, list(truth.values()), noises, missing, lost)


def figures(sound: Row, text: NDArray[np.float32] | None, recording: Row | None) -> Figures:
    """Figures of a sound for a caption's embedding, and against the recording of the clip where there is one."""
    found = _fit(sound, text)
    if recording is not None and recording["logits"] is not None:
        truth, heard = unpack(recording["logits"]), unpack(sound["logits"])
        found["kl_recording_made"] = kl_divergence(truth, heard)
        found["kl_made_recording"] = kl_divergence(heard, truth)
    return found | sound["scores"]


def _fit(sound: Row, text: NDArray[np.float32] | None) -> Figures:
    return {} if text is None or sound["clap"] is None else {"clap": float(unpack(sound["clap"]) @ text)}


def _hear_recordings(
    items: Sequence[Captioned], recordings: Mapping[str, Path], listener: Listener
) -> tuple[dict[str, Row], dict[str, str]]:
    found: dict[str, Row] = {}
    lost: dict[str, str] = {}
    clips = dict.fromkeys(item.clip for item in items) if recordings else {}
    for clip in tqdm(clips, desc="hearing recordings", unit="clip", disable=not clips):
        try:
            if clip not in recordings:
                raise AudioError("no such file")
            found[clip] = listener.file("recording", clip, recordings[clip])
        except AudioError as error:
            lost[clip] = str(error)
    return found, lost


def _require(missing: Mapping[str, Any], total: int, max_missing: float) -> None:
    if len(missing) > max_missing * total:
        name, why = next(iter(missing.items()))
        raise DataError(
            f"{len(missing)} of {total} sounds are missing or unreadable, at most {max_missing:.0%} may be (first: {name}: {why}). "
            "Check --audio, or allow some with --max_missing: they are scored as silence and counted."
        )
