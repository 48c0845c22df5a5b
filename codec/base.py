"""The codec contract: what every codec, ours or a baseline, offers to the floors above.

Shape letters of the whole repository: `B` batch, `S` samples, `T` frames, `K` codebooks, `V` vocabulary rows, `D` width.
"""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

Waveform = NDArray[np.float32]
"""One mono clip `(S,)`, float32 in [-1, 1], at the codec's sampling rate."""
Codes = NDArray[np.int64]
"""The codes of one clip `(K, T)`, each in [0, codebook_size)."""


@runtime_checkable
class Codec(Protocol):
    """Waveform ⇄ codes. Encoding is a property of the clip: the same codes alone or in any batch."""

    @property
    def sampling_rate(self) -> int:
        """Samples per second of the waveforms that go in and come out."""

    @property
    def frame_rate(self) -> float:
        """Frames per second."""

    @property
    def num_codebooks(self) -> int:
        """`K`: codes per frame."""

    @property
    def codebook_size(self) -> int:
        """Codes per codebook; every codebook of a codec has the same size."""

    @property
    def tokens_per_second(self) -> float:
        """`frame_rate × num_codebooks`: what one second of audio costs a language model."""

    @property
    def fingerprint(self) -> str:
        """Hash of everything that decides a code. Two codecs with one fingerprint give the same codes."""

    def encode(self, waveforms: Sequence[Waveform]) -> list[Codes]:
        """Encode clips `(S_i,)` of any lengths to codes `(K, T_i)`, in order."""

    def decode(self, codes: Sequence[Codes]) -> list[Waveform]:
        """Decode codes `(K, T_i)` to waveforms `(S_i,)`, in order. Raises `ValueError` on a code out of range."""

    def codebook_vectors(self) -> NDArray[np.float32] | None:
        """Codebook geometry `(K × codebook_size, D)` where it is meaningful (new embedding rows start from it), or None."""


@runtime_checkable
class WindowedCodec(Codec, Protocol):
    """A codec whose decoding draws noise by position, so that a part of a clip can be decoded as part of the whole."""

    def decode_window(self, codes: Codes, first_frame: int) -> Waveform:
        """Waveform of codes `(K, T)` that begin at `first_frame` of their clip, with the noise that the whole clip would have there."""


def decode_window(codec: Codec, codes: Codes, first_frame: int) -> Waveform:
    """A part of a clip decoded by itself; a codec that draws no noise needs no position."""
    if isinstance(codec, WindowedCodec):
        return codec.decode_window(codes, first_frame)
    return codec.decode([codes])[0]
