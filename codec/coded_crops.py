"""Crops of log-mel with the codes that a token store has for them: what stage 2 and its discriminator train on."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from codec.base import Codes
from codec.data import CropDataset
from codec.mel import log_mel


class CodesError(ValueError):
    """Codes that are not those of the audio beside them."""


@dataclass
class CodedMelCrops(CropDataset):
    """Crops of at most `crop_seconds`, whole frames of the clip's own log-mel, with the clip's own codes.

    Neither is computed from the crop: at its edges a crop's mel reads other samples, and its codes another context, than the clip's, and
    inference decodes whole clips. Drawn from (seed, epoch, index) alone. `codes_of` gives the codes `(1, T)` of a file or of its bytes.
    """

    codes_of: Callable[[Path | bytes], Codes] | None = None

    def __getitem__(self, index: int) -> dict[str, Any]:
        """`{"mel": (n, bins), "codes": (n,)}`. Raises `CodesError` where a clip's codes are not one for each of its frames."""
        assert self.crop_seconds is not None
        row, frames = self.whole(index), round(self.crop_seconds * self.spec.frame_rate)
        draw = hashlib.sha256(f"{self.seed} {self.epoch} {index}".encode()).digest()
        start = int.from_bytes(draw[:8], "big") % (max(len(row["codes"]) - frames, 0) + 1)
        return {name: values[start : start + frames] for name, values in row.items()}

    def whole(self, index: int) -> dict[str, Tensor]:
        """The uncropped clip: `{"mel": (T, bins), "codes": (T,)}`."""
        assert self.codes_of is not None
        _, clip, waveform = self._readable(index)
        codes, frames = self.codes_of(clip.audio), self.spec.frames(len(waveform))
        if codes.shape != (1, frames):
            name = clip.audio if isinstance(clip.audio, Path) else f"clip {index}"
            raise CodesError(
                f"{name} has {frames} frames, but its codes have shape {codes.shape}: they are of another file or codec; build the token "
                "store again"
            )
        return {"mel": log_mel(torch.from_numpy(waveform), self.spec), "codes": torch.from_numpy(codes[0])}


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
