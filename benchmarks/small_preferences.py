"""Pairs for DPO from a model's own speech: each text said several times, the best understood turn preferred to the worst.

    python benchmarks/small_preferences.py --model runs/small/speaker --texts runs/small/spoken/read/metadata.csv --asr WHISPER \\
        --output runs/small/pairs.jsonl

TEXTS is a CSV, the texts in its last column; every `--every`-th is said `--turns` times. A turn's worth is its word error rate under the
recogniser named; one that does not end in time counts as wholly wrong. Texts whose turns are all as good are left out.
"""

import csv
import json
from dataclasses import dataclass, field
from pathlib import Path

from alm.arguments import parse_arguments, run_main


@dataclass
class TurnArguments:
    model: str = field(metadata={"help": "checkpoint that speaks"})
    texts: str = field(metadata={"help": "CSV of texts"})
    asr: str = field(metadata={"help": "recogniser: folder of faster-whisper or Transformers, or Hub id"})
    output: str = field(metadata={"help": "JSON lines to write, as recipes/preference.py reads them"})
    every: int = field(default=10, metadata={"help": "take every so manieth text"})
    offset: int = field(default=0, metadata={"help": "from this one on"})
    turns: int = field(default=4, metadata={"help": "of each text"})
    temperature: float = field(default=0.8, metadata={"help": "of generation"})
    top_p: float = field(default=0.95, metadata={"help": "of generation"})
    max_seconds: float = field(default=12.0, metadata={"help": "longest turn"})
    seed: int = field(default=0, metadata={"help": "of generation"})


def main(argv: list[str] | None = None) -> None:
    args = parse_arguments(TurnArguments, argv, description=__doc__)
    import soxr

    from alm.checkpoint import load_checkpoint
    from alm.generation import Sampling, speak
    from alm.prompts import speech_messages
    from alm.scoring.speech.recognition import SAMPLING_RATE, find_recogniser, load_recogniser
    from alm.scoring.speech.words import word_counter

    with Path(args.texts).open(newline="") as lines:
        texts = sorted({row[-1] for row in list(csv.reader(lines))[1:]})[args.offset :: args.every]
    model, processor = load_checkpoint(args.model)
    recogniser, count = load_recogniser(find_recogniser(args.asr)), word_counter()
    turns = speak(
        model,
        processor,
        [text for text in texts for _ in range(args.turns)],
        sampling=Sampling(args.temperature, top_p=args.top_p),
        seed=args.seed,
        max_seconds=args.max_seconds,
    )
    pairs, rates = [], []
    for number, text in enumerate(texts):
        said = turns[number * args.turns : (number + 1) * args.turns]
        worth = []
        for turn in said:
            heard = recogniser(soxr.resample(turn.waveform, turn.sampling_rate, SAMPLING_RATE))
            errors, words = count(text, heard)
            worth.append(1.0 if turn.forced_end else errors / max(words, 1))
        rates += worth
        best, worst = (said[worth.index(choice(worth))] for choice in (min, max))
        if min(worth) < max(worth):
            chosen, rejected = ({"type": "audio", "codes": turn.codes.tolist()} for turn in (best, worst))
            pairs.append({"prompt": speech_messages(text), "chosen": chosen, "rejected": rejected})
    Path(args.output).write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    print(f"{len(pairs)} pairs of {len(texts)} texts; mean word error rate of a turn {sum(rates) / len(rates):.3f}")


if __name__ == "__main__":
    run_main(main)
