"""The clips of a benchmark, looked at before a model is loaded: what is missing or unreadable is known at once."""

import hashlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from alm.data.example import DataError
from codec.audio import AudioError, read_bytes, read_header


class Clips(NamedTuple):
    """Seconds and digest of each readable clip by question id, and what is wrong with the others."""

    seconds: dict[str, float]
    problems: dict[str, str]
    digests: dict[str, str]
    """Over the file's bytes: a row belongs to the clip that was heard, and not to its name."""


def inspect_clips(paths: Mapping[str, Path], max_missing: float) -> Clips:
    """Look at every clip's header and digest (milliseconds each), before any model is loaded.

    Raises `DataError`, with the first problem, when more than the share `max_missing` of the clips is missing or unreadable.
    """
    seconds: dict[str, float] = {}
    problems: dict[str, str] = {}
    digests: dict[str, str] = {}
    of_file = cache(file_digest)  # several questions may be about one clip
    for item_id, path in tqdm(paths.items(), desc="looking at clips", unit="clip", leave=False):
        try:
            # NaN (a header without a length) would break the sort by length: such a clip goes last
            length = float(np.nan_to_num(read_header(path).seconds))
            digests[item_id] = of_file(path)
            seconds[item_id] = length
        except AudioError as error:
            problems[item_id] = str(error)
    require_clips(problems, len(paths), max_missing)
    return Clips(seconds, problems, digests)


def require_clips(problems: Mapping[str, str], total: int, max_missing: float) -> None:
    """Raise `DataError` when more than the share `max_missing` of `total` clips has a problem."""
    if len(problems) > max_missing * total:
        raise DataError(
            f"{len(problems)} of {total} clips are missing or unreadable, or their questions refused; at most {max_missing:.0%} may be "
            f"(first: {next(iter(problems.values()))}). Check what it says and --audio, or raise the limit with --max_missing."
        )


def file_digest(path: Path) -> str:
    """16 hexadecimal digits of SHA-256. Raises `AudioError` for a file that cannot be read."""
    return hashlib.sha256(read_bytes(path)).hexdigest()[:16]
