"""Encoding and decoding speed of EntangleCodec beside the baselines of Transformers: real sizes, random weights, one clip at a time.

    OMP_NUM_THREADS=1 python benchmarks/codec_speed.py [--presets paper add small tiny] [--peers dac encodec mimi …] [--repeats 3]

All systems hear the same clip, each at its own rate, in turn within each repetition. Prints CPU seconds per second of audio and, for
each preset, the ratio peer / ours (above 1: ours is quicker): the median over the repetitions' pairs, with the smallest and largest.
The peers run with the codebooks that they have in the paper's tables. Presets: `paper`, the same with conditioning `add`, `small`
and `tiny`, each with a vocoder.
"""

import statistics
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from alm.arguments import parse_arguments, read_numbers, run_main

if TYPE_CHECKING:
    from codec.base import Codec

CONFIGS = "recipes/configs"
PRESETS = {"paper": ("paper", "paper", {}), "add": ("paper", "paper", {"conditioning": "add"})} | {
    name: (name, "tiny", {}) for name in ("small", "tiny")
}
PEERS = {  # model, and numbers of the default checkpoint that are not its configuration's defaults
    "dac": ("Dac", {"n_codebooks": 12, "downsampling_ratios": [2, 4, 5, 8]}),
    "encodec": ("Encodec", {}),
    "mimi": ("Mimi", {}),
    "xcodec": ("Xcodec", {}),
    "xcodec2": ("Xcodec2", {}),
    "wavtokenizer": ("WavTokenizer", {}),
}


@dataclass
class BenchmarkArguments:
    presets: list[str] = field(default_factory=lambda: list(PRESETS), metadata={"help": ", ".join(PRESETS)})
    peers: list[str] = field(default_factory=lambda: list(PEERS), metadata={"help": ", ".join(PEERS)})
    seconds: float = field(default=10.0, metadata={"help": "length of the clip"})
    repeats: int = field(default=3, metadata={"help": "paired repetitions"})

    def __post_init__(self) -> None:
        for kind, given, known in (("presets", self.presets, PRESETS), ("peers", self.peers, PEERS)):
            if unknown := [name for name in given if name not in known]:
                raise ValueError(f"--{kind} takes {', '.join(known)}, got {unknown[0]}")


def main(argv: list[str] | None = None) -> None:
    args = parse_arguments(BenchmarkArguments, argv, description=__doc__)
    import numpy as np
    import torch

    from codec.audio import resample

    torch.manual_seed(0)
    torch.set_flush_denormal(True)  # random deep stacks can fade to denormals, which no trained one does
    args.peers = [name for name in args.peers if available(name)]
    systems = {name: own(name) for name in args.presets} | {name: peer(name) for name in args.peers}
    rng = np.random.default_rng(0)
    clip = (0.1 * rng.standard_normal(round(args.seconds * 24_000))).astype(np.float32)
    clips = {name: resample(clip, 24_000, codec.sampling_rate) for name, codec in systems.items()}
    encoding: dict[str, list[float]] = {name: [] for name in systems}
    decoding: dict[str, list[float]] = {name: [] for name in systems}
    for repeat in range(args.repeats + 1):
        for name, codec in systems.items():
            wave = clips[name] if repeat else clips[name][: codec.sampling_rate]  # the first warms up
            start = time.process_time()
            codes = codec.encode([wave])
            middle = time.process_time()
            codec.decode(codes)
            if repeat:
                encoding[name].append((middle - start) / args.seconds)
                decoding[name].append((time.process_time() - middle) / args.seconds)
    report(systems, encoding, decoding, args)


def report(
    systems: "dict[str, Codec]",
    encoding: dict[str, list[float]],
    decoding: dict[str, list[float]],
    args: BenchmarkArguments,
) -> None:
    print(
        f"CPU seconds per second of audio, clip of {args.seconds:g} s\n{'':14}{'M':>7}{'tokens/s':>10}{'encode':>9}{'decode':>9}"
    )
    for name, codec in systems.items():
        millions = sum(weight.numel() for weight in codec.model.parameters()) / 1e6  # type: ignore[attr-defined]
        cost = (statistics.median(figures[name]) for figures in (encoding, decoding))
        print(f"{name:14}{millions:7.1f}{codec.tokens_per_second:10g}" + "".join(f"{figure:9.3f}" for figure in cost))
    for step, figures in (("encode", encoding), ("decode", decoding)):
        print(f"\n{step + ': peer / ours':20}" + "".join(f"{preset:>21}" for preset in args.presets))
        for name in args.peers:
            print(f"{name:20}" + "".join(f"{ratio(figures[name], figures[preset]):>21}" for preset in args.presets))


def ratio(theirs: list[float], ours: list[float]) -> str:
    ratios = [a / b for a, b in zip(theirs, ours, strict=True)]
    return f"{statistics.median(ratios):.3g} [{min(ratios):.3g}, {max(ratios):.3g}]"


def own(name: str) -> "Codec":
    """EntangleCodec of a preset with a vocoder."""
    from codec import EntangleCodec, EntangleCodecConfig, EntangleCodecModel

    folder, vocoder, changed = PRESETS[name]
    numbers = read_numbers(f"{CONFIGS}/{folder}/codec.yaml") | changed
    config = EntangleCodecConfig(**numbers, vocoder=read_numbers(f"{CONFIGS}/{vocoder}/vocoder.yaml"))
    return EntangleCodec(EntangleCodecModel(config).requires_grad_(False))


def available(name: str) -> bool:
    import transformers

    found = hasattr(transformers, f"{PEERS[name][0]}Model")
    if not found:
        print(f"{name} is left out: transformers {transformers.__version__} does not have it")
    return found


def peer(name: str) -> "Codec":
    """A baseline at the size of its default checkpoint, behind its adapter, with the paper's number of codebooks."""
    import transformers

    from codec.baselines.xcodec2 import Xcodec2FrontEnd
    from codec.zoo import BASELINES, _adapter

    prefix, numbers = PEERS[name]
    model = getattr(transformers, f"{prefix}Model")(getattr(transformers, f"{prefix}Config")(**numbers))
    for label, buffer in model.named_buffers():
        if label.endswith((".embed", ".embed_sum")):
            buffer.normal_()  # Transformers creates them as zeros
    if name == "xcodec2":
        front_end = Xcodec2FrontEnd(model.config.sampling_rate, model.config.hop_length)
    elif name in ("dac", "xcodec"):
        front_end = transformers.DacFeatureExtractor(sampling_rate=16_000, hop_length=320)
    else:
        front_end = transformers.EncodecFeatureExtractor(sampling_rate=24_000)
    return _adapter(BASELINES[name].adapter)(model, front_end, BASELINES[name].paper[0])


if __name__ == "__main__":
    run_main(main)
