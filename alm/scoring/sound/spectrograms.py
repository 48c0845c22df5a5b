"""Spectrograms as pixels."""

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from alm.scoring.sound.fidelity import MEL
from alm.scoring.sound.picture import show_mel
from codec.audio import resample
from codec.base import Waveform
from codec.mel import log_mel

Picture = NDArray[np.uint8]
"""Pixels `(height, width, 3)`, RGB."""


def spectrograms(waveforms: Mapping[str, Waveform], sampling_rate: int) -> Picture:
    """Mel spectrograms of named waveforms `(S_i,)`, one above the other, on one colour scale and one axis of time."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    mels = {
        name: log_mel(torch.from_numpy(resample(wave, sampling_rate, MEL.sampling_rate)), MEL)
        for name, wave in waveforms.items()
    }
    top = max(float(mel.max()) for mel in mels.values())
    # not pyplot: it keeps figures in a state that the server's threads would share
    figure = Figure(figsize=(10, 2.6 * len(mels)), dpi=100, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.subplots(len(mels), 1, squeeze=False, sharex=True)[:, 0]
    for axis, (name, mel) in zip(axes, mels.items(), strict=True):
        show_mel(axis, mel, top, name)
    axes[-1].set_xlabel("seconds")
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
