"""Audio files and arrays ⇄ the one waveform the project knows: mono float32 `(S,)`, at the rate that the codec wants.

soundfile decodes (WAV, FLAC, OGG/Opus, MP3, AIFF, …), soxr resamples (HQ, pinned: another resampler gives other codes).
Whatever cannot be read whole and sound raises `AudioError`; nothing is repaired, shortened or replaced in silence.
"""

import io
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import soundfile
import soxr
from numpy.typing import ArrayLike, NDArray

AUDIO_SUFFIXES = (".wav", ".flac", ".mp3", ".ogg", ".opus", ".aiff", ".aif", ".au", ".w64", ".rf64", ".caf")
"""What a search through a folder takes for audio: the formats whose decoder comes with soundfile's wheel."""
_ACCEPTED = "accepted: WAV, FLAC, OGG, Opus, MP3, AIFF with 1 or more channels"
_RATES = range(1_000, 768_001)
_BLOCK = 1 << 18  # frames decoded at a time, so that a header that lies about its length costs no memory
_MP3_SLACK = 2 * 1152  # samples; MP3 lengths are known to a frame or two only
_UNKNOWN = 1 << 62  # libsndfile's "length not stated"


class AudioError(ValueError):
    """Audio that cannot be used: says which file or array, what was found and what is accepted."""


class AudioHeader(NamedTuple):
    """What a file's header says; `frames` is -1 where the header does not state the length."""

    frames: int
    sampling_rate: int
    channels: int

    @property
    def seconds(self) -> float:
        """Duration in seconds, NaN where unknown."""
        return self.frames / self.sampling_rate if self.frames >= 0 else float("nan")


class _Stream(soundfile.SoundFile):
    """A sound file read front to back: soundfile's own seek after each block fails on a FLAC of unstated length."""

    def seekable(self) -> bool:
        return False


def read_audio(source: str | Path | bytes, sampling_rate: int, name: str = "") -> NDArray[np.float32]:
    """Read a file, or a file's bytes, as one mono waveform `(S,)` float32 at `sampling_rate`, S ≥ 1.

    Channels are averaged, then resampled. Samples of float files are kept as they are, also beyond ±1. `name` is what errors
    call the bytes.
    Raises `AudioError` for a file that is missing, a folder, empty, not audio, cut short, or has NaN, infinite or no samples.
    """
    name = name or ("audio bytes" if isinstance(source, bytes) else str(source))
    data = source if isinstance(source, bytes) else read_bytes(source)
    missing = _missing_bytes(data)
    if missing:
        raise AudioError(
            f"{name}: cut short, {missing} bytes that its header promises are missing; copy the file again"
        )
    with _open(buffer := io.BytesIO(data), name) as file:
        rate, stated = _check_rate(file.samplerate, name), file.frames
        slack = _MP3_SLACK if file.format == "MP3" else 0
        try:
            mono = _decode(file)
        except (soundfile.LibsndfileError, MemoryError) as error:
            raise AudioError(f"{name}: damaged or cut short, the decoder says '{error}'; {_ACCEPTED}") from error
    unread = data[buffer.tell() :] if slack else b""
    if len(mono) + slack < stated < _UNKNOWN:
        raise AudioError(
            f"{name}: cut short, its header promises {stated} frames, {len(mono)} are there; copy the file again"
        )
    if len(unread) > 4096 and unread[0] == 0xFF and unread[1] >= 0xE0:
        # a variable-rate MP3 without a length header: libsndfile guesses the length from the first frame and stops there
        raise AudioError(
            f"{name}: MP3 without a length header, {len(unread)} bytes of audio left unread; `ffmpeg -i IN.mp3 -c copy OUT.mp3` adds it"
        )
    return resample(_check_samples(mono, name), rate, sampling_rate)


def read_bytes(path: str | Path) -> bytes:
    """Bytes of a file. Raises `AudioError` where it is missing, a folder, unreadable or empty."""
    path = Path(path)
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise AudioError(f"{path}: no such file; {_ACCEPTED}") from error
    except IsADirectoryError as error:
        raise AudioError(f"{path}: a folder, an audio file is expected; {_ACCEPTED}") from error
    except OSError as error:
        raise AudioError(f"{path}: cannot be read ({error.strerror}); {_ACCEPTED}") from error
    if not data:
        raise AudioError(f"{path}: an empty file (0 bytes); {_ACCEPTED}")
    return data


def read_header(source: str | Path | bytes, name: str = "") -> AudioHeader:
    """Length, rate and channels from the header alone, of a file or of a file's bytes (which errors call `name`).

    Raises `AudioError` where it is not audio.
    """
    name = name or ("audio bytes" if isinstance(source, bytes) else str(source))
    if not isinstance(source, bytes) and (not Path(source).is_file() or not Path(source).stat().st_size):
        read_bytes(source)  # raises with the reason
    try:
        info = soundfile.info(io.BytesIO(source) if isinstance(source, bytes) else str(source))
    except (soundfile.LibsndfileError, TypeError) as error:
        raise AudioError(f"{name}: not an audio file ({error}); {_ACCEPTED}") from error
    return AudioHeader(info.frames if info.frames < _UNKNOWN else -1, info.samplerate, info.channels)


def prepare(waveform: ArrayLike, from_rate: int, to_rate: int) -> NDArray[np.float32]:
    """Check an array of one mono clip `(S,)` and bring it to float32 `(S',)` at `to_rate`.

    Accepts floats (about [-1, 1]; kept as they are), int16 and int32 (scaled to [-1, 1)). Raises `AudioError` otherwise,
    and for an array that is not one-dimensional, is empty, has NaN or infinite samples or a float peak above 100.
    """
    array = np.asarray(waveform)
    if array.ndim != 1:
        raise AudioError(f"array of shape {array.shape}: one mono clip (S,) is expected; average the channels first")
    if array.dtype in (np.int16, np.int32):
        scaled = (array / -float(np.iinfo(array.dtype).min)).astype(np.float32)
    elif array.dtype in (np.float16, np.float32, np.float64):
        scaled = array.astype(np.float32)
    else:
        raise AudioError(f"array of {array.dtype}: accepted are float16, float32, float64 in [-1, 1], int16 and int32")
    scaled = _check_samples(scaled, "array")
    if float(np.abs(scaled).max()) > 100:
        raise AudioError(
            f"array with a peak of {np.abs(scaled).max():g}: floats in [-1, 1] are expected; divide 16-bit values by 32768"
        )
    return resample(scaled, _check_rate(from_rate, "array"), to_rate)


def resample(waveform: NDArray[np.float32], from_rate: int, to_rate: int) -> NDArray[np.float32]:
    """Resample `(S,)` to `(S',)`, S' = S × to_rate / from_rate to within one sample, and at least 1 (soxr HQ)."""
    _check_rate(from_rate, "from_rate"), _check_rate(to_rate, "to_rate")
    if from_rate == to_rate or not len(waveform):
        return np.ascontiguousarray(waveform, dtype=np.float32)
    result: NDArray[np.float32] = soxr.resample(waveform, from_rate, to_rate, quality="HQ")
    # one sample at 192 kHz is an eighth of one at 24 kHz: soxr returns none, but a clip stays a clip
    return result if len(result) else np.asarray(waveform[:1], dtype=np.float32)


def write_audio(path: str | Path, waveform: ArrayLike, sampling_rate: int) -> None:
    """Write one mono clip `(S,)` as 16-bit PCM, `.wav` or `.flac` by suffix; parent folders are made.

    Values are rounded to steps of 1/32768 and saturate at ±1 (they never wrap around), so that int16 samples come back exactly.
    Raises `AudioError` for another suffix and for the arrays `prepare` refuses.
    """
    path = Path(path)
    if path.suffix.lower() not in (".wav", ".flac"):
        raise AudioError(f"{path}: written are .wav and .flac, not '{path.suffix}'")
    samples = prepare(waveform, sampling_rate, sampling_rate)
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(str(path), pcm16(samples), sampling_rate, subtype="PCM_16")


def pcm16(waveform: NDArray[np.float32]) -> NDArray[np.int16]:
    """Floats `(S,)` in steps of 1/32768, saturated at ±1."""
    return np.clip(np.round(waveform * 32768.0), -32768, 32767).astype(np.int16)


def _open(buffer: io.BytesIO, name: str) -> _Stream:
    try:
        return _Stream(buffer)
    except soundfile.LibsndfileError as error:
        head = buffer.getvalue()[:24]
        lfs = " (a Git LFS pointer: run `git lfs pull`)" if head.startswith(b"version https://git-lfs") else ""
        raise AudioError(
            f"{name}: not an audio file, or a damaged one ({error.error_string}); it begins with {head!r}{lfs}; {_ACCEPTED}"
        ) from error


def _decode(file: soundfile.SoundFile) -> NDArray[np.float32]:
    """All frames there are, channels averaged, `(S,)`."""
    blocks: list[NDArray[np.float32]] = []
    while True:
        size = max(1, min(_BLOCK, file.frames))
        block = file.read(size, dtype="float32", always_2d=True)
        blocks.append(block[:, 0] if block.shape[1] == 1 else block.mean(axis=1, dtype=np.float32))
        if len(block) < size or sum(map(len, blocks)) == file.frames:
            return np.concatenate(blocks)


def _check_samples(samples: NDArray[np.float32], name: str) -> NDArray[np.float32]:
    if not len(samples):
        raise AudioError(f"{name}: holds no samples; at least one is needed")
    bad = ~np.isfinite(samples)
    if bad.any():
        raise AudioError(
            f"{name}: {int(bad.sum())} of {len(samples)} samples are NaN or infinite, the first at {int(bad.argmax())}"
        )
    return samples


def _check_rate(rate: Any, name: str) -> int:
    if rate not in _RATES:
        raise AudioError(
            f"{name}: sampling rate {rate!r}; accepted are whole numbers from {_RATES[0]} to {_RATES[-1]} Hz"
        )
    return int(rate)


def _missing_bytes(data: bytes) -> int:
    """Bytes that the container's header promises and the file lacks; libsndfile reads such files short without a word."""
    end = 0
    if data[:4] == b"RIFF":
        end = _riff_end(data)
    elif data[:4] == b"RF64" and data[12:16] == b"ds64":
        end = 8 + int.from_bytes(data[20:28], "little")
    elif data[:4] == b"riff":  # Sony Wave64: the size includes its own header
        end = int.from_bytes(data[16:24], "little")
    elif data[:4] == b"FORM":
        end = 8 + int.from_bytes(data[4:8], "big")
    elif data[:4] == b".snd" and data[8:12] != b"\xff" * 4:
        end = int.from_bytes(data[4:8], "big") + int.from_bytes(data[8:12], "big")
    elif data[:4] == b"OggS":
        last = data.rfind(b"OggS")
        table = data[last + 27 : last + 27 + data[last + 26]] if len(data) >= last + 27 else b""
        end = last + 27 + (data[last + 26] + sum(table) if len(data) >= last + 27 else 0)
    return max(0, end - len(data))


def _riff_end(data: bytes) -> int:
    """Offset of the end of a WAV's `data` chunk; 0 where it was written to a pipe and states no size."""
    start = 12
    while start + 8 <= len(data):
        size = int.from_bytes(data[start + 4 : start + 8], "little")
        if data[start : start + 4] == b"data":
            return 0 if size >= 0x7FFFF000 else start + 8 + size  # ffmpeg and sox write such sizes to pipes
        start += 8 + size + size % 2  # chunks are padded to even length
    return 0
