"""Crops with the codes that a token store has for them: log-mel for stage 2 and its discriminator, waveforms for the vocoder."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from codec.base import Codes
from codec.data import CropDataset
from codec.mel import log_mel


class CodesError(ValueError):
    """Codes that are not those of the audio beside them."""


NO_CODE = -1
"""Stands in a row of codes behind the clip's end."""


@dataclass
class CodedCrops(CropDataset):
    """What the two kinds of crops share. `codes_of` gives the codes `(1, T)` of a file or of its bytes: those of the whole clip.

    Drawn from (seed, epoch, index) alone.
    """

    codes_of: Callable[[Path | bytes], Codes] | None = None

    def clip(self, index: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Waveform `(S,)` and codes `(T,)` of a clip. Raises `CodesError` where they are not one for each of its frames."""
        assert self.codes_of is not None
        _, clip, waveform = self._readable(index)
        codes, frames = self.codes_of(clip.audio), self.spec.frames(len(waveform))
        if codes.shape != (1, frames):
            name = clip.audio if isinstance(clip.audio, Path) else f"clip {index}"
            raise CodesError(
                f"{name} has {frames} frames, but its codes have shape {codes.shape}: they are of another file or codec; build the token "
                "store again"
            )
        return waveform, codes[0]

    def window(self, index: int, frames: int) -> slice:
        """The frames of a crop of a clip that has `frames`."""
        assert self.crop_seconds is not None
        size = round(self.crop_seconds * self.spec.frame_rate)
        draw = hashlib.sha256(f"{self.seed} {self.epoch} {index}".encode()).digest()
        start = int.from_bytes(draw[:8], "big") % (max(frames - size, 0) + 1)
        return slice(start, start + size)


class CodedMelCrops(CodedCrops):
    """Crops of at most `crop_seconds`, whole frames of the clip's own log-mel, with the clip's own codes.

    Neither is computed from the crop: at its edges a crop's mel reads other samples, and its codes another context, than the clip's, and
    inference decodes whole clips.
    """

    def __getitem__(self, index: int) -> dict[str, Any]:
        """`{"mel": (n, bins), "codes": (n,)}`."""
        row = self.whole(index)
        window = self.window(index, len(row["codes"]))
        return {name: values[window] for name, values in row.items()}

    def whole(self, index: int) -> dict[str, Tensor]:
        """The uncropped clip: `{"mel": (T, bins), "codes": (T,)}`."""
        waveform, codes = self.clip(index)
        return {"mel": log_mel(torch.from_numpy(waveform), self.spec), "codes": torch.from_numpy(codes)}


class CodedWaveformCrops(CodedCrops):
    """Crops of exactly `crop_seconds` that begin on a frame: waveforms with the clip's codes."""

    def __getitem__(self, index: int) -> dict[str, Any]:
        """`{"waveform": (S,), "codes": (T,)}` of S = T × hop samples; behind a short clip's end zeros and `NO_CODE`."""
        waveform, codes = self.clip(index)
        window, hop = self.window(index, len(codes)), self.spec.hop_length
        frames = window.stop - window.start
        crop, part = waveform[window.start * hop : window.stop * hop], codes[window]
        return {
            "waveform": torch.from_numpy(np.pad(crop, (0, frames * hop - len(crop)))),
            "codes": torch.from_numpy(np.pad(part, (0, frames - len(part)), constant_values=NO_CODE).astype(np.int64)),
        }


def collate_coded(rows: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Pad rows to a batch: `mel` `(B, T, bins)`, `codes` `(B, T)`, and `attention_mask` `(B, T)` only where lengths differ."""
    lengths = torch.tensor([len(row["codes"]) for row in rows])
    pad = torch.nn.utils.rnn.pad_sequence
    batch = {name: pad([row[name] for row in rows], batch_first=True) for name in ("mel", "codes")}
    if int(lengths.min()) < int(lengths.max()):
        batch["attention_mask"] = (torch.arange(int(lengths.max())) < lengths[:, None]).long()
    return batch


def lengths_of(codes: Tensor, attention_mask: Tensor | None) -> list[int]:
    """Real frames of each clip of a batch."""
    return [codes.shape[1]] * len(codes) if attention_mask is None else attention_mask.sum(1).tolist()
