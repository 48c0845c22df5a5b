"""What turns an original into a reconstruction: a codec of the zoo, or a folder of another system's files."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from alm.scoring.clips import file_digest
from alm.scoring.manifest import weights_digest
from alm.scoring.sound.base import Waveform
from alm.scoring.sound.sources import Clip, native_rate
from codec.audio import AudioError, read_audio, read_bytes, resample
from codec.base import Codec


class Made(NamedTuple):
    """A reconstruction `(S,)` with its rate, and its codes `(K, T)` where a codec made it."""

    waveform: Waveform
    sampling_rate: int
    codes: NDArray[np.int64] | None = None


class System(Protocol):
    """Something whose reconstructions are measured."""

    @property
    def identity(self) -> dict[str, Any]:
        """Everything that decides a reconstruction, for the result and for resuming."""

    def digest(self, clip: Clip) -> str:
        """Digest of what else decides this clip's reconstruction; empty where the original does alone."""

    def reconstruct(self, clip: Clip | None, waveform: Waveform, sampling_rate: int) -> Made:
        """Reconstruct an original `(S,)` at `sampling_rate`. Raises `AudioError`."""


class CodecSystem:
    """A codec: encode, decode. With `griffin_lim` an EntangleCodec's mel is heard without its vocoder."""

    def __init__(self, codec: Codec, name: str, griffin_lim: bool = False) -> None:
        self.codec, self.name, self.griffin_lim = codec, name, griffin_lim
        config = getattr(getattr(codec, "model", None), "config", None)
        if griffin_lim and getattr(config, "model_type", None) != "entangle_codec":
            raise AudioError(f"--griffin_lim is for an EntangleCodec; {name} makes its waveform itself")

    @property
    def identity(self) -> dict[str, Any]:
        """Fingerprint of the codes and digest of all weights: the decoder decides the sound, the fingerprint leaves it out."""
        import torch

        model = getattr(self.codec, "model", None)
        weights = weights_digest(model) if isinstance(model, torch.nn.Module) else None
        return {
            "codec": self.codec.fingerprint,
            "weights": weights,
            "num_codebooks": self.codec.num_codebooks,
            "codebook_size": self.codec.codebook_size,
            "sampling_rate": self.codec.sampling_rate,
            "frame_rate": self.codec.frame_rate,
            "waveform": "griffin_lim" if self.griffin_lim else "vocoder",
        }

    def digest(self, clip: Clip) -> str:
        """Nothing but the original decides."""
        return ""

    def reconstruct(self, clip: Clip | None, waveform: Waveform, sampling_rate: int) -> Made:
        """Encode and decode at the codec's rate. What the codec refuses (a clip over its limit) is an `AudioError`."""
        rate = self.codec.sampling_rate
        try:
            codes = self.codec.encode([resample(waveform, sampling_rate, rate)])[0]
            made = self._griffin_lim(codes) if self.griffin_lim else self.codec.decode([codes])[0]
        except ValueError as error:
            name = clip.id if clip is not None else "clip"
            raise AudioError(f"{name}: refused by the codec: {error}") from error
        return Made(made, rate, codes)

    def _griffin_lim(self, codes: NDArray[np.int64]) -> Waveform:
        import torch

        model: Any = self.codec.model  # type: ignore[attr-defined]
        with torch.inference_mode():
            values = model.decode(torch.from_numpy(codes)[None], vocode="griffin_lim").audio_values
        waveform: Waveform = values[0, 0].numpy()
        return waveform


class StoredSystem:
    """Files of any other system, by clip id."""

    def __init__(self, paths: Mapping[str, Path], folder: str) -> None:
        self.paths, self.folder = paths, folder

    @property
    def identity(self) -> dict[str, Any]:
        """The folder."""
        return {"reconstructions": Path(self.folder).name}

    def digest(self, clip: Clip) -> str:
        """Digest of the stored file."""
        return file_digest(self.paths[clip.id])

    def reconstruct(self, clip: Clip | None, waveform: Waveform, sampling_rate: int) -> Made:
        """Read the stored file at its own rate."""
        assert clip is not None, "a length sweep needs a codec"
        data, name = read_bytes(self.paths[clip.id]), str(self.paths[clip.id])
        rate = native_rate(data, name)
        return Made(read_audio(data, rate, name), rate)
