"""What all baselines share: the contract's numbers, checks of what goes in, one clip at a time, the fingerprint."""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from codec.base import Codes, Waveform
from codec.entangle import exact_float32


class BaselineError(ValueError):
    """A request that a baseline cannot meet: says what was given, what is accepted, what to do."""


class Shape(NamedTuple):
    """Numbers of a codec's model: `num_codebooks` is all that it has."""

    sampling_rate: int
    frame_rate: float
    num_codebooks: int
    codebook_size: int


class BaselineCodec(ABC):
    """A foreign model in evaluation mode and float32 that satisfies `codec.base.Codec`.

    `num_codebooks` keeps the first `K` codebooks of a residual quantizer (default: all): a later one never changes an earlier one's code.
    """

    decoder_parts: tuple[str, ...] = ()
    """Prefixes of the weights that decide no code."""

    def __init__(self, model: nn.Module, shape: Shape, num_codebooks: int | None = None) -> None:
        self.model: Any = model.eval()
        self.name = type(model).__name__
        if num_codebooks is not None and not 1 <= num_codebooks <= shape.num_codebooks:
            raise BaselineError(
                f"{self.name} has {shape.num_codebooks} codebooks: num_codebooks is 1 to {shape.num_codebooks}, got {num_codebooks}"
            )
        self.sampling_rate, self.frame_rate, all_codebooks, self.codebook_size = shape
        self.num_codebooks = num_codebooks or all_codebooks
        self._fingerprint: str | None = None

    @property
    def tokens_per_second(self) -> float:
        """`frame_rate × num_codebooks`."""
        return self.frame_rate * self.num_codebooks

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        device: torch.device = next(self.model.parameters()).device
        return device

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits over class, codebooks in use, settings and weights of encoder and quantizer; not where they came from."""
        if self._fingerprint is None:
            shape = {"class": self.name, "num_codebooks": self.num_codebooks, "settings": self._settings()}
            hasher = hashlib.sha256(json.dumps(shape, sort_keys=True, default=str).encode())
            for name, value in sorted(self.model.state_dict().items()):
                if not name.startswith(self.decoder_parts):
                    hasher.update(name.encode())
                    hasher.update(value.detach().float().cpu().contiguous().numpy().tobytes())
            self._fingerprint = hasher.hexdigest()[:16]
        return self._fingerprint

    @torch.inference_mode()
    def encode(self, waveforms: Sequence[Waveform]) -> list[Codes]:
        """Codes `(K, T_i)` of waveforms `(S_i,)` at `sampling_rate`, one clip at a time, in float32, TF32 off.

        Raises `BaselineError` on a waveform that is empty or not mono.
        """
        found = []
        with exact_float32():
            for waveform in waveforms:
                clip = np.ascontiguousarray(waveform, dtype=np.float32)
                if clip.ndim != 1 or not clip.size:
                    raise BaselineError(f"{self.name} encodes mono waveforms (S,) with S > 0, got {clip.shape}")
                codes = self._encode(clip)[: self.num_codebooks]
                found.append(codes.to("cpu", torch.int64).numpy())
        return found

    @torch.inference_mode()
    def decode(self, codes: Sequence[Codes]) -> list[Waveform]:
        """Waveforms `(S_i,)` of codes `(K, T_i)`: whole frames, where the model's own edges take nothing away.

        Raises `BaselineError` on another number of codebooks, no frame, or a code out of range.
        """
        for clip in codes:
            if clip.ndim != 2 or clip.shape[0] != self.num_codebooks or not clip.shape[1]:
                raise BaselineError(f"{self.name} decodes codes ({self.num_codebooks}, T) with T > 0, got {clip.shape}")
            if clip.min() < 0 or clip.max() >= self.codebook_size:
                raise BaselineError(
                    f"codes of {self.name} are from 0 to {self.codebook_size - 1}, got {clip.min()} to {clip.max()}"
                )
        with exact_float32():
            made = [
                self._decode(torch.as_tensor(np.asarray(clip, dtype=np.int64), device=self.device)) for clip in codes
            ]
        return [waveform.float().cpu().numpy() for waveform in made]

    def codebook_vectors(self) -> NDArray[np.float32]:
        """Rows `(K × codebook_size, D)` of the codebooks in use, as the decoder reads them."""
        rows = [rows.detach().float().cpu().numpy() for rows in self._codebooks()[: self.num_codebooks]]
        return np.concatenate(rows).astype(np.float32)

    @abstractmethod
    def _encode(self, waveform: Waveform) -> Tensor:
        """Codes `(≥ K, T)` of one clip `(S,)`."""

    @abstractmethod
    def _decode(self, codes: Tensor) -> Tensor:
        """Waveform `(S,)` of the codes `(K, T)` of one clip."""

    @abstractmethod
    def _codebooks(self) -> list[Tensor]:
        """Every codebook `(codebook_size, D)`, in the order of the codes."""

    @abstractmethod
    def _settings(self) -> dict[str, Any]:
        """What decides a code besides the weights."""
