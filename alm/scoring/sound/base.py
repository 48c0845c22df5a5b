"""What a metric of reconstructed sound is: how it is found, loaded and called, and what it says where it cannot run."""

import hashlib
import importlib.metadata
import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from codec.audio import resample

Waveform = NDArray[np.float32]
Values = dict[str, float]
"""Score name → value of one clip; NaN where the metric is undefined on it."""


class MetricUnavailable(ValueError):  # noqa: N818 (a state that is reported beside the figures, seldom an error)
    """A metric that cannot run here: says what is missing and how to get it."""


class Found(NamedTuple):
    """Where a metric's model or package is: `label` goes into the result (`name@revision`, `name version`)."""

    label: str
    path: Path | None = None


class Measure(Protocol):
    """One loaded metric. Waveforms `(S,)` of equal length at the metric's rate; `reference` is None for a listener's metric."""

    def __call__(self, reference: Waveform | None, made: Waveform) -> Values:
        """Scores of one clip."""


@dataclass(frozen=True)
class Metric:
    """A metric by name.

    Args:
        name: what `--metrics` takes.
        scores: score name → unit, in the order of the table.
        sampling_rate: of the waveforms that it is given.
        find: finds its package or checkpoint (an optional path of the user's goes first) without importing or downloading
            anything; raises `MetricUnavailable`.
        load: reads it onto a device.
        compares: with the original; otherwise it listens to one waveform alone, and the originals are scored, too.
        stand_in: a model under its own name that approximates another metric; runs only when named.
    """

    name: str
    scores: Mapping[str, str]
    sampling_rate: int
    find: Callable[[str | None], Found]
    load: Callable[[Found, str], Measure]
    compares: bool = True
    stand_in: bool = False


class Pair:
    """An original and its reconstruction, at any rate and always of one length.

    The rule of lengths: at each rate both are cut to the shorter of the two from their beginning; nothing is padded, stretched
    or aligned. `cut_reference` and `cut_made` say what was cut, in seconds.
    """

    def __init__(self, reference: Waveform, reference_rate: int, made: Waveform, made_rate: int) -> None:
        if not len(reference) or not len(made):
            raise ValueError(f"both clips need samples, got {len(reference)} and {len(made)}")
        self._clips = (reference, reference_rate), (made, made_rate)
        self._at: dict[int, tuple[Waveform, Waveform]] = {}
        self.seconds, self.made_seconds = len(reference) / reference_rate, len(made) / made_rate

    @property
    def cut_reference(self) -> float:
        """Seconds of the original that the reconstruction lacks."""
        return max(0.0, self.seconds - self.made_seconds)

    @property
    def cut_made(self) -> float:
        """Seconds of the reconstruction behind the original's end (codecs fill up their last frame)."""
        return max(0.0, self.made_seconds - self.seconds)

    def at(self, sampling_rate: int) -> tuple[Waveform, Waveform]:
        """Original and reconstruction `(S,)` at `sampling_rate`."""
        if sampling_rate not in self._at:
            reference, made = (resample(clip, rate, sampling_rate) for clip, rate in self._clips)
            length = min(len(reference), len(made))
            self._at[sampling_rate] = reference[:length], made[:length]
        return self._at[sampling_rate]


def middle(waveform: Waveform, samples: int) -> Waveform:
    """The middle `samples` of a waveform `(S,)`, or all of a shorter one."""
    start = max(0, len(waveform) - samples) // 2
    return waveform[start : start + samples]


def package(name: str, install: str) -> Callable[[str | None], Found]:
    """A `find` for a metric that is a Python package; `install` is what to give to pip."""

    def find(path: str | None) -> Found:
        if path is not None:
            raise MetricUnavailable(f"the package {name} brings its own numbers; it takes no checkpoint, got {path}")
        spec = importlib.util.find_spec(name)
        if spec is None:
            raise MetricUnavailable(f"the package {name} is not installed: pip install {install}")
        folder = Path(spec.origin).parent if spec.origin else None
        return Found(f"{name} {importlib.metadata.version(name)}", folder)

    return find


def hub_file(repository: str, name: str) -> Callable[[str | None], Found]:
    """A `find` for a checkpoint of the Hub by one of its files: a local path (file or folder), or the local cache."""

    def find(path: str | None) -> Found:
        if path is not None:
            return local(Path(path), name)
        from huggingface_hub import try_to_load_from_cache

        cached = try_to_load_from_cache(repository, name)
        if not isinstance(cached, str):
            raise MetricUnavailable(
                f"{repository} is not in the local Hub cache: hf download {repository} (or --checkpoints METRIC=FOLDER)"
            )
        return Found(f"{repository}@{Path(cached).parent.name}", Path(cached))

    return find


def transformers_model(name: str, what: str, flag: str) -> Found:
    """Where a model of Transformers is: a folder, labelled by the digest of its files, or a Hub id in the local cache.

    Loads and downloads nothing. Raises `MetricUnavailable` with the way to get it.
    """
    if (folder := Path(name)).is_dir():
        files = sorted(path for path in folder.iterdir() if path.suffix in (".json", ".txt", ".safetensors", ".bin"))
        if not (folder / "config.json").is_file():
            raise MetricUnavailable(f"the {what} {name}: a folder without config.json is no model of Transformers")
        digests = " ".join(local(file, file.name).label for file in files)
        return Found(f"{folder.name}, sha256 {hashlib.sha256(digests.encode()).hexdigest()[:16]}", folder)
    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(name, "config.json")
    if not isinstance(cached, str):
        raise MetricUnavailable(
            f"the {what} {name} is neither a folder nor in the local Hub cache: hf download {name} (or {flag} FOLDER)"
        )
    return Found(f"{name}@{Path(cached).parent.name}", Path(cached).parent)


def local(path: Path, name: str) -> Found:
    """A checkpoint that the user named: the file, or the file `name` in a folder. Labelled by its digest."""
    file = path / name if path.is_dir() else path
    if not file.is_file():
        raise MetricUnavailable(f"{file}: no such file")
    with file.open("rb") as stream:
        return Found(f"{file.name}, sha256 {hashlib.file_digest(stream, 'sha256').hexdigest()[:16]}", file)


def load_strictly(module: object, state: Mapping[str, object], what: str) -> None:
    """Fill a module from a state; a name too many or too few raises `MetricUnavailable`: half-loaded models score, too."""
    missing, unexpected = module.load_state_dict(state, strict=False)  # type: ignore[attr-defined]
    if missing or unexpected:
        raise MetricUnavailable(
            f"{what} is not the checkpoint that is expected: lacks {sorted(missing)[:3]}, has besides {sorted(unexpected)[:3]}"
        )
