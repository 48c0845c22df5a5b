"""Tokenising and looking up, in CPU seconds: hours of audio per CPU-hour, shares of the steps, growth with the corpus, lookups by key.

    OMP_NUM_THREADS=1 python benchmarks/tokenize_speed.py --codec CODEC --work DIR [--clips 200] [--keys 10000 100000 1000000]

Makes clips of mixed lengths (1 to 30 s, uniform in the logarithm), rates (16, 44.1, 48 kHz) and forms (WAV, FLAC, MP3; every other one
stereo) in DIR, unless they are there. "One at a time" reads a file, encodes it and goes on to the next, through the same codec.
"""

import os
import resource
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alm.arguments import parse_arguments, run_main

if TYPE_CHECKING:
    from codec.entangle import EntangleCodec


@dataclass
class SpeedArguments:
    work: str = field(metadata={"help": "folder for clips and stores"})
    codec: str | None = field(default=None, metadata={"help": "folder of an EntangleCodec; none: lookups alone"})
    audio: list[str] = field(default_factory=list, metadata={"help": "recordings, instead of made clips"})
    clips: int = field(default=200, metadata={"help": "clips of mixed lengths"})
    frames_per_batch: int = field(default=1_024, metadata={"help": "the recipe's on a CPU"})
    repeats: int = field(default=3, metadata={"help": "paired repetitions"})
    keys: list[int] = field(default_factory=lambda: [10_000, 100_000, 1_000_000], metadata={"help": "stores' sizes"})
    opened: str | None = field(
        default=None, metadata={"help": "open this store, look up, print, exit (used by itself)"}
    )


def main(argv: list[str] | None = None) -> None:
    args = parse_arguments(SpeedArguments, argv, description=__doc__)
    if args.opened:
        measure_lookups(Path(args.opened))
        return
    work = Path(args.work)
    if args.codec:
        from alm.data.audio_files import find_audio
        from codec import EntangleCodec

        codec = EntangleCodec.from_pretrained(args.codec)
        codec.frames_per_batch = args.frames_per_batch
        paths = find_audio(args.audio).paths if args.audio else make_clips(work / "clips", args.clips)
        compare(codec, paths, work / "store", args.repeats)
        shares(codec, paths)
        growth(codec, paths, work / "store", args.repeats)
    for keys in args.keys:
        store = make_store(work / f"keys-{keys}", keys)
        # a process of its own: memory is what a store adds to an empty Python
        subprocess.run([sys.executable, __file__, "--work", args.work, "--opened", str(store)], check=True)


def cpu(run: Callable[[], Any]) -> float:
    """CPU seconds of all threads."""
    begun = time.process_time()
    run()
    return time.process_time() - begun


def make_clips(folder: Path, clips: int) -> list[Path]:
    import numpy as np
    import soundfile

    folder.mkdir(parents=True, exist_ok=True)
    rng, paths = np.random.default_rng(0), []
    for index in range(clips):
        seconds, rate = float(np.exp(rng.uniform(0, np.log(30)))), (16_000, 44_100, 48_000)[index % 3]
        path = folder / f"{index:05d}.{('wav', 'flac', 'mp3')[index // 3 % 3]}"
        paths.append(path)
        samples = 0.3 * np.sin(np.arange(int(seconds * rate)) * rng.uniform(0.01, 0.1)) + rng.normal(
            0, 0.05, int(seconds * rate)
        )
        if not path.exists():
            soundfile.write(path, np.stack([samples, 0.5 * samples], 1) if index % 2 else samples, rate)
    return paths


def build(codec: "EntangleCodec", paths: Sequence[Path], store: Path) -> float:
    """Hours of audio, in batches of the codec's own limit."""
    from alm.data.tokens_build import build_token_store

    shutil.rmtree(store, ignore_errors=True)
    return build_token_store(paths, codec, store, frames_per_batch=codec.frames_per_batch, progress=False).hours


def compare(codec: "EntangleCodec", paths: Sequence[Path], store: Path, repeats: int) -> None:
    from codec.audio import read_audio

    def one_at_a_time() -> None:
        for path in paths:
            codec.encode([read_audio(path, codec.sampling_rate)])

    hours = build(codec, paths, store)
    pairs = [(cpu(one_at_a_time), cpu(lambda: build(codec, paths, store))) for _ in range(repeats)]
    ratios = sorted(single / batched for single, batched in pairs)
    single, batched = (statistics.median(pair[i] for pair in pairs) for i in (0, 1))
    print(f"{len(paths)} clips, {hours * 3600:.0f} s of audio")
    print(f"hours of audio per CPU-hour: store {hours * 3600 / batched:.0f}, one at a time {hours * 3600 / single:.0f}")
    print(f"one at a time / store: {statistics.median(ratios):.2f} [{ratios[0]:.2f}, {ratios[-1]:.2f}]", flush=True)


def shares(codec: "EntangleCodec", paths: Sequence[Path]) -> None:
    """CPU seconds of each step alone, over the batches that a build would make."""
    from alm.data.tokens_format import content_key
    from alm.data.tokens_read import batches
    from codec.audio import read_audio, read_header, resample

    rates = [read_header(path).sampling_rate for path in paths]
    native: list[Any] = []
    clips: list[Any] = []
    steps = {"hash, twice": 2 * cpu(lambda: [content_key(path) for path in paths])}
    steps["decode"] = cpu(lambda: native.extend(read_audio(p, r) for p, r in zip(paths, rates, strict=True)))
    target = codec.sampling_rate
    steps["resample"] = cpu(lambda: clips.extend(resample(x, r, target) for x, r in zip(native, rates, strict=True)))
    cut = batches([codec._frames(clip) for clip in clips], codec.frames_per_batch)
    steps["mel"] = cpu(
        lambda: [codec.feature_extractor([clips[i] for i in batch], sampling_rate=target) for batch in cut]
    )
    steps["encoder"] = cpu(lambda: [codec.encode([clips[i] for i in batch]) for batch in cut]) - steps["mel"]
    total = sum(steps.values())
    print("shares: " + ", ".join(f"{name} {value / total:.1%}" for name, value in steps.items()), flush=True)


def growth(codec: "EntangleCodec", paths: Sequence[Path], store: Path, repeats: int) -> None:
    tenth = paths[:: len(paths) // max(1, len(paths) // 10)]

    def cost(some: Sequence[Path]) -> float:
        begun = time.process_time()
        hours = build(codec, some, store)
        return (time.process_time() - begun) / hours

    ratios = [cost(paths) / cost(tenth) for _ in range(repeats)]
    text = f"{statistics.median(ratios):.2f} [{min(ratios):.2f}, {max(ratios):.2f}]"
    print(f"CPU seconds per hour, {len(paths)} clips / {len(tenth)} clips: {text}", flush=True)


def make_store(folder: Path, keys: int) -> Path:
    """A store of so many clips of one frame, each with a source."""
    if (folder / "store.json").exists():
        return folder
    import numpy as np

    from alm.data.tokens_format import SHARDS, Clip, Source, StoreContract
    from alm.data.tokens_merge import commit
    from alm.data.tokens_tables import write_shard, write_sources

    (folder / SHARDS).mkdir(parents=True)
    contract = StoreContract("synthetic", 1, 64, 24_000, 50.0, "uint16")
    codes = np.zeros(1, np.uint16)
    names = [f"{i * ((1 << 128) // keys):032x}" for i in range(keys)]
    shards = [
        write_shard(folder / SHARDS, [Clip(key, codes, 1, 0.02) for key in names[start : start + 500_000]], contract)
        for start in range(0, keys, 500_000)
    ]
    sources = [Source(f"../audio/{i:09d}.wav", 1, 1, key) for i, key in enumerate(names)]
    totals = {"clips": keys, "seconds": keys * 0.02, "tokens": keys, "made_with": {}}
    commit(folder, contract, "synthetic", shards, write_sources(folder, sources), totals)
    return folder


def measure_lookups(folder: Path) -> None:
    """Open a store, look clips up by key and by path; in milliseconds, microseconds and bytes."""
    import random

    from alm.data.tokens import TokenStore

    def resident() -> int:
        pages = Path("/proc/self/statm").read_text(encoding="ascii").split()
        return (int(pages[1]) - int(pages[2])) * resource.getpagesize()  # without the pages of mapped files

    keys = int(folder.name.split("-")[1])
    rng = random.Random(0)
    picked = [rng.randrange(keys) for _ in range(5_000)]
    by_key = [f"{i * ((1 << 128) // keys):032x}" for i in picked]
    by_path = [os.path.normpath(folder / f"../audio/{i:09d}.wav") for i in picked]
    TokenStore.open(make_store(folder.parent / "keys-10", 10)).keys()  # Arrow loads pandas once
    before, begun = resident(), time.process_time()
    store = TokenStore.open(folder)
    assert by_key[0] in store
    opening = time.process_time() - begun
    key_time = cpu(lambda: [store.codes_by_key(key) for key in by_key]) / len(picked)
    first_path = cpu(lambda: store.key_of(by_path[0]))
    path_time = cpu(lambda: [store.key_of(path) for path in by_path]) / len(picked)
    grown = (resident() - before) / keys
    print(
        f"{keys:>10,} keys: open {opening * 1e3:.1f} ms, lookup by key {key_time * 1e6:.1f} µs, first by path {first_path * 1e3:.1f} ms, "
        f"by path {path_time * 1e6:.1f} µs, memory {grown:.1f} bytes a key",
        flush=True,
    )


if __name__ == "__main__":
    run_main(main)
