"""Speech synthesis: espeak-ng through ctypes, from the pip package `espeakng_loader` (no program, no compiler)."""

import _ctypes
import ctypes
from types import TracebackType
from typing import Any

import numpy as np
import soxr

from alm.data.demo.effects import SAMPLING_RATE, Wave
from alm.data.example import DataError

_OUTPUT_SYNCHRONOUS, _CHARS_UTF8, _POS_CHARACTER = 2, 1, 1
_RATE, _PITCH, _RANGE = 1, 3, 4  # espeak_PARAMETER of speak_lib.h
_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


def espeak_paths() -> tuple[str, str]:
    """Paths of the espeak-ng library and its data. Raises `DataError` where the package is missing."""
    try:
        import espeakng_loader
    except ImportError as error:
        raise DataError(
            "the demo corpus speaks with espeak-ng, whose package espeakng-loader is not installed: "
            'pip install "entangle-alm[demo]"'
        ) from error
    return espeakng_loader.get_library_path(), espeakng_loader.get_data_path()


def espeak_version() -> str:
    """Version of the espeak-ng library, as it states it."""
    with Speaker() as speaker:
        return speaker.version()


class Speaker:
    """One loaded copy of espeak-ng. Use as a context manager: `with Speaker() as speaker: speaker.say(…)`.

    The library keeps state from one utterance to the next (phases, flutter, echo) that nothing resets, so a waveform would
    depend on what was said before it. A copy is loaded for every clip (0.7 ms) and unloaded after it: the clip's audio is then
    a function of the clip alone, whatever the number of workers.
    """

    def __init__(self) -> None:
        path, data = espeak_paths()
        self._library: Any = ctypes.CDLL(path)
        self._chunks: list[np.ndarray[Any, np.dtype[np.int16]]] = []
        self._callback = _CALLBACK(self._receive)  # kept alive as long as the library may call it
        self.native_rate = int(self._library.espeak_Initialize(_OUTPUT_SYNCHRONOUS, 0, data.encode(), 0))
        if self.native_rate <= 0:
            raise DataError(f"espeak-ng did not start with its data in {data}: reinstall espeakng-loader")
        self._library.espeak_SetSynthCallback(self._callback)

    def __enter__(self) -> "Speaker":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._library.espeak_Terminate()
        unload = getattr(_ctypes, "dlclose", None) or getattr(_ctypes, "FreeLibrary", None)
        if unload is not None:
            unload(self._library._handle)

    def version(self) -> str:
        """Version of the library."""
        self._library.espeak_Info.restype = ctypes.c_char_p
        return str(self._library.espeak_Info(None).decode())

    def _receive(self, samples: Any, count: int, _events: Any) -> int:
        if samples and count > 0:
            self._chunks.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0

    def say(self, text: str, voice: str, rate: float = 175, pitch: float = 50, pitch_range: float = 50) -> Wave:
        """`text` spoken by `voice` ("en-us+m3") at `rate` words per minute; `pitch` and `pitch_range` in [0, 100].

        Returns the waveform `(S,)` at `SAMPLING_RATE`, in [-1, 1], without silence at its ends. Raises `DataError` for a voice
        that espeak-ng does not have or a text that it says nothing for.
        """
        self._chunks.clear()
        if self._library.espeak_SetVoiceByName(voice.encode()) != 0:
            raise DataError(
                f"espeak-ng has no voice {voice!r}; a voice is a language and a variant, such as 'en-us+m3'"
            )
        for parameter, value in ((_RATE, rate), (_PITCH, pitch), (_RANGE, pitch_range)):
            self._library.espeak_SetParameter(parameter, round(value), 0)
        data = text.encode() + b"\0"
        self._library.espeak_Synth(data, ctypes.c_size_t(len(data)), 0, _POS_CHARACTER, 0, _CHARS_UTF8, None, None)
        self._library.espeak_Synchronize()
        pcm = np.concatenate(self._chunks) if self._chunks else np.zeros(0, np.int16)
        loud = np.flatnonzero(np.abs(pcm) > 200)
        if not len(loud):
            raise DataError(f"espeak-ng said nothing for {text!r}")
        spoken = pcm[loud[0] : loud[-1] + 1].astype(np.float64) / 32_768
        return np.asarray(soxr.resample(spoken, self.native_rate, SAMPLING_RATE), dtype=np.float64)
