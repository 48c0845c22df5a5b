"""Encoding speed of EntangleCodec at the paper's size against codecs of Transformers, random weights, 10-s clips, one at a time.

    OMP_NUM_THREADS=1 python benchmarks/codec_encode.py [--peers encodec mimi dac]

Prints CPU seconds per second of audio and the ratio peer / ours (above 1: ours is quicker) with its spread over repetitions.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from alm.arguments import parse_arguments, run_main


@dataclass
class BenchmarkArguments:
    peers: list[str] = field(
        default_factory=lambda: ["encodec", "mimi", "dac"], metadata={"help": "encodec, mimi, dac"}
    )
    seconds: float = field(default=10.0, metadata={"help": "length of the clip"})
    repeats: int = field(default=3, metadata={"help": "paired repetitions"})


def peer(name: str, seconds: float) -> Callable[[], Any]:
    """Encoding of one clip by a codec of Transformers at its published size."""
    import torch
    import transformers

    classes = {"encodec": ("Encodec", 24_000), "mimi": ("Mimi", 24_000), "dac": ("Dac", 16_000)}
    prefix, rate = classes[name]
    model = getattr(transformers, f"{prefix}Model")(getattr(transformers, f"{prefix}Config")()).eval()
    wave = 0.1 * torch.randn(1, 1, int(seconds * rate))
    return lambda: model.encode(wave)


def main(argv: list[str] | None = None) -> None:
    args = parse_arguments(BenchmarkArguments, argv, description=__doc__)
    import torch

    from codec import EntangleCodec, EntangleCodecConfig, EntangleCodecModel

    codec = EntangleCodec(EntangleCodecModel(EntangleCodecConfig(decoder_num_hidden_layers=1)))
    wave = (0.1 * torch.randn(int(args.seconds * 24_000))).numpy()
    runs = {"entangle (paper size)": lambda: codec.encode([wave])} | {
        name: peer(name, args.seconds) for name in args.peers
    }
    spent: dict[str, list[float]] = {name: [] for name in runs}
    with torch.inference_mode():
        for repeat in range(args.repeats + 1):
            for name, run in runs.items():
                start = time.process_time()
                run()
                if repeat:  # the first warms up
                    spent[name].append((time.process_time() - start) / args.seconds)
    ours = next(iter(spent.values()))
    for name, figures in spent.items():
        ratios = [a / b for a, b in zip(figures, ours, strict=True)]
        print(
            f"{name:22} {statistics.median(figures):.3f} CPU s per second   ratio {statistics.median(ratios):.2f}  "
            f"[{min(ratios):.2f}, {max(ratios):.2f}]"
        )


if __name__ == "__main__":
    run_main(main)
