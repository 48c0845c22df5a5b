"""What a codec keeps of a clip: log-mel error and intelligibility. Plain functions on waveforms."""

import warnings

import numpy as np
import torch
from numpy.typing import NDArray

from codec.mel import MelSpec, log_mel

Waveform = NDArray[np.float32]


def log_mel_error(reference: Waveform, made: Waveform, spec: MelSpec) -> float:
    """Mean absolute difference of the two normalised log-mels, in standard deviations of `spec`; both `(S,)` at its rate.

    Compared over the reference's length; a codec's output may run on to the end of its last frame.
    """
    length = len(reference)
    if len(made) < length:
        raise ValueError(f"the reconstruction has {len(made)} samples, fewer than the reference's {length}")
    pair = [log_mel(torch.from_numpy(np.ascontiguousarray(x[:length])), spec) for x in (reference, made)]
    return float((pair[0] - pair[1]).abs().mean())


def stoi(reference: Waveform, made: Waveform, sampling_rate: int) -> float:
    """Short-time objective intelligibility (Taal et al., 2011) by pystoi, in about [0, 1]; NaN where it is undefined.

    It needs about 0.4 s of sound within 40 dB of the loudest frame. Raises `ImportError` without the `eval` extra.
    """
    from pystoi import stoi as pystoi

    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)  # pystoi warns and returns 1e-5 where it has too few frames
        try:
            return float(pystoi(reference, made[: len(reference)], sampling_rate, extended=False))
        except (RuntimeWarning, np.exceptions.AxisError):  # the latter where a single frame is loud enough to count
            return float("nan")
