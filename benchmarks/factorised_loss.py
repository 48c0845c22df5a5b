"""Cross-entropy within a token's modality against cross-entropy over the whole vocabulary: what it saves, and what is learned.

    OMP_NUM_THREADS=1 python benchmarks/factorised_loss.py --output FOLDER --flags FILE     # FILE: flags of recipes/pretrain.py

An experiment, not a flag of the recipes: p(token) = p(modality) p(token | modality), and where a grammar decides the modality (as ours
does in generation), the first factor need not be learned. A labelled code competes with codes and special tokens only, a labelled text
token with text and special tokens only. Both ways train the same model on the same rows; in both, the loss within the modality is what is
compared (mean of each fifth of the run). Before that, CPU seconds of head and loss at Qwen3-0.6B's shape for 200 labelled codes: all
168,064 rows against the 16,384 codes and the special tokens.
"""

import json
import runpy
import shlex
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alm.arguments import parse_arguments, run_main

ROOT = Path(__file__).parents[1]
WIDTH, ROWS, CODES, LABELLED = 1024, 168_064, 16_384, 200


@dataclass
class ExperimentArguments:
    output: str = field(metadata={"help": "folder of both runs"})
    flags: str | None = field(
        default=None, metadata={"help": "file with the flags of recipes/pretrain.py; none: only the head is timed"}
    )
    repeats: int = field(default=3, metadata={"help": "pairs of the head's timing"})


def main(argv: list[str] | None = None) -> None:
    args = parse_arguments(ExperimentArguments, argv, description=__doc__)
    pairs = [(head_seconds(ROWS), head_seconds(CODES + 8)) for _ in range(args.repeats)]
    ratios = sorted(whole / part for whole, part in pairs)
    print(
        f"head and loss of {LABELLED} codes: {statistics.median(whole for whole, _ in pairs):.2f} CPU-s over {ROWS:,} rows, "
        f"{statistics.median(part for _, part in pairs):.3f} over {CODES + 8:,}: {statistics.median(ratios):.1f} × "
        f"[{ratios[0]:.1f}, {ratios[-1]:.1f}]"
    )
    if args.flags is None:
        return
    flags = shlex.split(Path(args.flags).read_text(encoding="utf-8"))
    for way in ("whole", "within"):
        found = train(way, [*flags, "--output_dir", str(Path(args.output) / way)])
        size = -(-len(found) // 5)
        fifths = [found[start : start + size] for start in range(0, len(found), size)]
        for place, name in enumerate(("codes within codes", "text within text")):
            words = ", ".join(f"{mean(row[place] for row in part):.3f}" for part in fifths)
            print(f"{way:<7} loss of {name}, by fifths of the run: {words}", flush=True)
        lost = mean(share for *_, share in fifths[-1])
        print(f"{way:<7} probability that the whole softmax gives the other modality, last fifth: {lost:.1e}")


def mean(values: Iterable[float]) -> float:
    """Of the rows that have any such token."""
    return statistics.fmean(value for value in values if value == value)


def head_seconds(rows: int) -> float:
    """CPU seconds of the head's product, the loss, and both ways back."""
    import torch
    from torch.nn import functional as F

    torch.manual_seed(0)
    hidden = torch.randn(LABELLED, WIDTH, requires_grad=True)
    head = torch.randn(rows, WIDTH, requires_grad=True)
    targets = torch.randint(0, CODES, (LABELLED,))
    start = time.process_time()
    F.cross_entropy(hidden @ head.T * WIDTH**-0.5, targets).backward()
    return time.process_time() - start


def train(way: str, flags: list[str]) -> list[tuple[float, float, float]]:
    """Train by the recipe; per packed row the losses within codes and within text, and the mass of the other modality."""
    import torch

    from alm.training import sft
    from alm.training.cross_entropy import CrossEntropy

    found: list[tuple[float, float, float]] = []
    groups = group_masks(flags)

    def loss(logits: Any, targets: Any, count: float) -> CrossEntropy:
        normal = logits.logsumexp(-1)
        wanted = logits.gather(1, targets[:, None])[:, 0]
        is_code = groups["code"][targets]
        inner = torch.where(
            is_code,
            logits.masked_fill(~groups["codes"], -torch.inf).logsumexp(-1),
            logits.masked_fill(~groups["texts"], -torch.inf).logsumexp(-1),
        )
        within = (inner - wanted).detach()
        parts = [float(within[mask].mean()) if bool(mask.any()) else float("nan") for mask in (is_code, ~is_code)]
        found.append((*parts, float(1 - (inner - normal).detach().exp().mean())))  # type: ignore[arg-type]
        total = ((normal if way == "whole" else inner) - wanted).sum()
        return CrossEntropy(total / count, (logits.argmax(-1) == targets).sum())

    original: Callable[..., Any] = sft.cross_entropy_in_place
    sft.cross_entropy_in_place = loss
    try:
        runpy.run_path(str(ROOT / "recipes" / "pretrain.py"))["main"](flags)
    finally:
        sft.cross_entropy_in_place = original
    return found


def group_masks(flags: list[str]) -> dict[str, Any]:
    """Masks over the vocabulary: what counts as `code` (codes, and the end of audio), and what competes with `codes` and with `texts`."""
    import torch

    from alm.processing import AudioLanguageProcessor

    processor = AudioLanguageProcessor.from_pretrained(flags[flags.index("--model") + 1])
    vocabulary = processor.vocabulary
    rows = json.loads((Path(flags[flags.index("--model") + 1]) / "config.json").read_text(encoding="utf-8"))[
        "vocab_size"
    ]
    codes = torch.zeros(rows, dtype=torch.bool)
    codes[vocabulary.first_id : vocabulary.first_id + vocabulary.codebook_size] = True
    code = codes.clone()
    code[vocabulary.end_id] = True  # where a sound ends is decided among codes
    special = torch.zeros(rows, dtype=torch.bool)
    special[list(processor.tokenizer.all_special_ids)] = True
    return {"code": code, "codes": codes | special, "texts": ~codes | special}


if __name__ == "__main__":
    run_main(main)
