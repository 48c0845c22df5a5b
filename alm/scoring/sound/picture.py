"""Mel spectrograms of originals above reconstructions, a column a clip."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from alm.scoring.sound.base import Pair
from alm.scoring.sound.fidelity import MEL
from alm.scoring.sound.sources import Clip, native_rate
from alm.scoring.sound.systems import System
from codec.audio import AudioError, read_audio
from codec.mel import log_mel

COLUMNS = 4
"""Clips side by side; more go below."""


def spread(clips: Sequence[Clip], number: int) -> list[Clip]:
    """`number` clips, taken in turn from the groups, evenly over each."""
    groups: dict[str, list[Clip]] = {}
    for clip in clips:
        groups.setdefault(clip.group, []).append(clip)
    shares = [number // len(groups) + (i < number % len(groups)) for i in range(len(groups))]
    chosen: list[Clip] = []
    for members, share in zip(groups.values(), shares, strict=True):
        share = min(share, len(members))
        chosen += [members[(2 * i + 1) * len(members) // (2 * share)] for i in range(share)]
    return chosen


def draw(clips: Sequence[Clip], system: System, path: Path) -> int:
    """Reconstruct the clips once more and write the PNG; returns how many are in it, unreadable ones being left out.

    All share one colour scale, from 80 dB below the loudest bin of any.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    drawn: list[tuple[str, Any, Any]] = []
    for clip in clips:
        try:
            pair = _pair(clip, system)
        except AudioError:
            continue  # listed by the run
        original, made = (log_mel(torch.from_numpy(wave.copy()), MEL) for wave in pair.at(MEL.sampling_rate))
        drawn.append((clip.id, original, made))
    if not drawn:
        return 0
    top = max(float(mel.max()) for _, *mels in drawn for mel in mels)
    columns = min(COLUMNS, len(drawn))
    lines = 2 * -(-len(drawn) // columns)
    figure, axes = pyplot.subplots(
        lines, columns, figsize=(5 * columns, 2.4 * lines), squeeze=False, layout="constrained"
    )
    for axis in axes.flat:
        axis.set_visible(False)
    for number, (name, *mels) in enumerate(drawn):
        for line, (what, mel) in enumerate(zip(("original", "reconstruction"), mels, strict=True)):
            axis = axes[2 * (number // columns) + line, number % columns]
            axis.set_visible(True)
            show_mel(axis, mel, top, f"{what}: {name}"[-60:])
            axis.set_xlabel("seconds" if line else "")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)
    pyplot.close(figure)
    return len(drawn)


def show_mel(axis: Any, mel: Tensor, top: float, title: str) -> None:
    """Draw a log-mel `(T, bins)` of `MEL` on Matplotlib's `axis`, from 80 dB below `top` (nats of power)."""
    extent = (0, len(mel) / MEL.frame_rate, 0, MEL.num_mel_bins)
    # 80 dB of power are 18.4 nats
    axis.imshow(mel.T.numpy(), origin="lower", aspect="auto", vmin=top - 18.4, vmax=top, extent=extent)
    axis.set_title(title, fontsize=9)
    axis.set_ylabel("mel bin")


def _pair(clip: Clip, system: System) -> Pair:
    data = clip.bytes()
    rate = native_rate(data, clip.id)
    waveform = read_audio(data, rate, clip.id)
    made = system.reconstruct(clip, waveform, rate)
    return Pair(waveform, rate, made.waveform, made.sampling_rate)
