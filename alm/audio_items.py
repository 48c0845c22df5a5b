"""The audio of messages in all its forms, as waveforms: files, bytes, arrays, and the columns of `datasets`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from alm.data.example import Content, DataError
from codec.audio import prepare, read_audio, read_header
from codec.base import Waveform

ACCEPTED = (
    "`path` (a file), `bytes` (a file's bytes), `audio` (S,) with `sampling_rate`, or `audio` as a column of datasets gives it "
    "({bytes, path} or {array, sampling_rate}), or `codes` (K, T)"
)
CheckLength = Callable[[float, str], None]
"""Takes seconds and a name; raises where a clip is too long. Files are asked before they are decoded."""


def read_item(item: Content | str | Path, rate: int, check: CheckLength) -> Waveform:
    """Waveform `(S,)` at `rate` of an audio item of messages, or of a file.

    Raises `DataError` where the item holds no audio in a known form, `codec.audio.AudioError` where it cannot be read, and what
    `check` raises.
    """
    source, sampling_rate = _source(item)
    if isinstance(source, str | Path):
        if "://" in str(source):
            raise DataError(f"{source}: addresses are not fetched; download the file and give its path or its bytes")
        check(read_header(source).seconds, str(source))
        return read_audio(source, rate)
    waveform = read_audio(source, rate) if isinstance(source, bytes) else prepare(source, sampling_rate, rate)
    check(len(waveform) / rate, "audio bytes" if isinstance(source, bytes) else "an array")
    return waveform


def _source(item: Content | str | Path) -> tuple[Any, int]:
    """File, bytes or array of an item, and an array's sampling rate."""
    if isinstance(item, str | Path):
        return item, 0
    inner = item.get("audio")
    given = {**item, **inner} if isinstance(inner, dict) else item
    # datasets keeps the bytes beside the name that the file had where it was packed: the bytes are what is there
    if given.get("bytes") is not None:
        return given["bytes"], 0
    array = given.get("array", None if isinstance(inner, dict) else inner)
    if isinstance(array, str | Path):
        return array, 0
    if array is not None and given.get("sampling_rate") is not None:
        return array, int(given["sampling_rate"])
    if given.get("path") is not None:
        return given["path"], 0
    raise DataError(f"an audio item needs {ACCEPTED}; got only {sorted(item)}")
