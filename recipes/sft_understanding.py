"""Fine-tune a language model with an audio vocabulary on questions about audio: MusicQA, ClothoAQA, COMPA-R (Tables 6 and 8).

    accelerate launch recipes/sft_understanding.py --model runs/demo/lm_base --tokens runs/demo/tokens --output_dir runs/demo/lm \\
        --musicqa DATA/FinetuneMusicQA.json --musicqa_audio DATA/audios \\
        --clothoaqa DATA/clotho_aqa_train.csv --clothoaqa_audio DATA/audio_files \\
        --compa_r DATA/compa_r_train.json --compa_r_audio DATA

Any subset of the data sets will do; --model is the output of recipes/extend_vocabulary.py, --tokens of recipes/tokenize_corpus.py.
An interrupted run goes on from its last checkpoint when the same command is given again. OUTPUT_DIR ends as a complete checkpoint.
"""

import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alm.arguments import parse_with_trainer_arguments, run_main

if TYPE_CHECKING:
    from alm.data.example import Example, ReadReport
    from alm.data.sequences import SequenceReport


@dataclass
class UnderstandingArguments:
    model: str = field(metadata={"help": "checkpoint with an audio vocabulary: folder or Hub id"})
    tokens: str = field(metadata={"help": "token store of recipes/tokenize_corpus.py"})
    output_dir: str = field(metadata={"help": "folder of the trained model, its checkpoints and its log"})
    musicqa: str | None = field(default=None, metadata={"help": "MusicQA: FinetuneMusicQA.json"})
    musicqa_audio: str | None = field(default=None, metadata={"help": "MusicQA: folder of the audio"})
    clothoaqa: str | None = field(default=None, metadata={"help": "ClothoAQA: clotho_aqa_train.csv"})
    clothoaqa_audio: str | None = field(default=None, metadata={"help": "ClothoAQA: folder of the audio"})
    clothoaqa_aggregate: str = field(
        default="rows",
        metadata={
            "help": "ClothoAQA: an example per annotator's row, as the paper counts, or per majority answer",
            "choices": ["rows", "majority"],
        },
    )
    compa_r: str | None = field(default=None, metadata={"help": "COMPA-R: compa_r_train.json"})
    compa_r_audio: str | None = field(default=None, metadata={"help": "COMPA-R: folder that holds the audio"})
    learning_rate: float = field(default=1e-5, metadata={"help": "highest learning rate (Table 6)"})
    max_steps: int = field(default=10_000, metadata={"help": "optimiser steps (Table 6)"})
    max_length: int = field(default=2048, metadata={"help": "tokens of a packed row, and most of one conversation"})
    questions_per_conversation: int = field(
        default=1,
        metadata={
            "help": "most questions about a clip behind one copy of its audio; 1: each with its own, as the paper"
        },
    )
    too_long: str = field(
        default="error",
        metadata={"help": "conversations beyond max_length: error, or skip (counted)", "choices": ["error", "skip"]},
    )
    max_missing: float = field(default=0.1, metadata={"help": "share of examples whose audio may be missing"})
    attention: str = field(
        default="auto", metadata={"help": "auto, by_document, sdpa or flash_attention_2; all see documents apart"}
    )
    seed: int = field(default=42, metadata={"help": "seed of the order of data"})
    resume_from_checkpoint: str = field(
        default="auto", metadata={"help": "auto (the last checkpoint of OUTPUT_DIR if there is one), true, or a folder"}
    )
    overwrite_output: bool = field(default=False, metadata={"help": "start afresh where OUTPUT_DIR holds a run"})
    preview: int = field(default=0, metadata={"help": "print so many sequences, ⟦labelled parts⟧ marked, and exit"})
    dry_run: bool = field(default=False, metadata={"help": "read the data, print the plan, and exit"})

    def __post_init__(self) -> None:
        for name in ("musicqa", "clothoaqa", "compa_r"):
            if (getattr(self, name) is None) != (getattr(self, f"{name}_audio") is None):
                raise ValueError(f"--{name} and --{name}_audio go together")
        if not self.files():
            raise ValueError("name at least one data set: --musicqa, --clothoaqa or --compa_r, each with its _audio")

    def files(self) -> dict[str, str]:
        """Metadata file of each data set given."""
        given = {name: getattr(self, name) for name in ("musicqa", "clothoaqa", "compa_r")}
        return {name: path for name, path in given.items() if path is not None}


# The paper gives steps and learning rate; the rest is ours (docs/paper.md). `--help_all` lists every flag
DEFAULTS: dict[str, Any] = {
    "packing": True,
    "per_device_train_batch_size": 8,
    "lr_scheduler_type": "cosine",
    "warmup_steps": 0.03,
    "save_steps": 500,
    "save_total_limit": 2,
    "report_to": "none",
}


def trainer_arguments() -> type:
    from alm.training.sft import SequenceConfig

    return SequenceConfig


def main(argv: list[str] | None = None) -> None:
    args, training = parse_with_trainer_arguments(UnderstandingArguments, argv, __doc__, trainer_arguments, DEFAULTS)
    import torch
    from datasets import Dataset

    from alm.checkpoint import load_checkpoint
    from alm.data.sequences import SequenceBuilder, SequenceReport, preview, write_sequences
    from alm.data.tokens import TokenStore
    from alm.training import run
    from alm.training.sft import build_trainer, save_final

    output, looking = Path(args.output_dir), args.dry_run or args.preview > 0
    ranks = training.distributed_state
    if args.overwrite_output and not looking and ranks.is_main_process:
        run.clear(output)
    ranks.wait_for_everyone()
    checkpoint = None if looking else run.starting_point(output, args.resume_from_checkpoint)
    complete = run.is_complete(checkpoint, training.max_steps)
    start = checkpoint if checkpoint and complete else args.model
    model, processor = load_checkpoint(start, dtype=torch.float32, check_codec=False)
    store = TokenStore.open(args.tokens)
    builder = SequenceBuilder(
        processor,
        store,
        args.max_length,
        args.questions_per_conversation,
        args.too_long,
        args.seed,
        args.max_missing,
    )
    read: list[ReadReport] = []
    report = SequenceReport()
    rows = builder.build(examples(args, read), report)
    if args.preview:
        print("\n\n".join(preview(row, processor) for row in islice(rows, args.preview)))
        return
    if args.dry_run:
        for _ in rows:
            pass  # the builder counts them
        print(plan(args, training, model, read, report))
        return

    data = output / run.SEQUENCES / "sequences.arrow"
    if ranks.is_main_process:
        digest = write_sequences(rows, data)
        run.require_same_data(data.with_suffix(".json"), digest, going_on=checkpoint is not None)
        print(plan(args, training, model, read, report))
        print(f"going on from {checkpoint}" if checkpoint else "starting from the first step")
    ranks.wait_for_everyone()
    trainer = build_trainer(model, processor, Dataset.from_file(str(data)), training, args.attention)
    metrics = {} if complete else trainer.train(resume_from_checkpoint=checkpoint).metrics
    save_final(trainer)
    if ranks.is_main_process:
        parts = {
            "recipe": Path(__file__).name,
            "vocabulary": processor.vocabulary.hash,
            "token_store": store.contract,
            "files": {path: run.file_digest(path) for path in args.files().values()},
            "read": [vars(one) for one in read],
            "sequences": {**vars(report), "packed_rows": len(trainer.train_dataset)},
            "arguments": asdict(args),
            "trainer": training.to_dict(),
            "training": metrics,
        }
        run.write_manifest(output, parts, sys.argv)
        shutil.rmtree(output / run.SEQUENCES)
        print(f"saved to {output}")


def examples(args: UnderstandingArguments, reports: "list[ReadReport]") -> "Iterator[Example]":
    """All examples of the data sets given, with progress; what was dropped is in `reports`."""
    from tqdm import tqdm

    from alm.data import clothoaqa, compa_r, musicqa
    from alm.data.example import ReadReport

    clotho = partial(clothoaqa.read, aggregate=args.clothoaqa_aggregate)
    for name, reader in (("musicqa", musicqa.read), ("clothoaqa", clotho), ("compa_r", compa_r.read)):
        if getattr(args, name) is not None:
            reports.append(ReadReport(name))
            found = reader(getattr(args, name), getattr(args, f"{name}_audio"), reports[-1], args.max_missing)
            yield from tqdm(found, desc=f"reading {name}", unit=" examples")


def plan(
    args: UnderstandingArguments, training: Any, model: Any, read: "list[ReadReport]", report: "SequenceReport"
) -> str:
    """What a run does, in words."""
    from alm.training.memory import estimate_memory

    parameters = sum(p.numel() for p in model.parameters())
    rows_per_step = training.per_device_train_batch_size * training.gradient_accumulation_steps * training.world_size
    tokens = report.tokens
    passes = training.max_steps * rows_per_step * args.max_length / max(tokens, 1)
    if training.max_steps > 0:
        length = f"{training.max_steps:,} steps, about {passes:.1f} passes"
    else:
        length = f"{training.num_train_epochs:g} passes"
    row = training.per_device_train_batch_size * args.max_length
    memory = estimate_memory(
        model.config,
        parameters,
        row,
        labelled=round(row * report.labelled / max(tokens, 1)),
        half_precision=bool(training.bf16 or training.fp16),
        gradient_checkpointing=training.gradient_checkpointing,
    )
    lines = [f"model          {args.model}, {parameters:,} parameters, {model.config.vocab_size:,} rows"]
    for one in read:
        lost = ", ".join(f"{count:,} {reason}" for reason, count in one.dropped.items()) or "none"
        lines.append(f"{one.source:<14} {one.rows:,} rows, {one.examples:,} examples; dropped: {lost}")
    gone = f"{report.too_long.total():,} too long, {report.without_tokens.total():,} without tokens"
    precision = "bfloat16" if training.bf16 else "float16" if training.fp16 else "float32"
    lines += [
        f"sequences      {report.sequences.total():,} of {report.examples.total():,} examples; {gone}",
        f"tokens         {tokens:,}, {report.labelled:,} labelled; longest sequence {report.longest:,} of {args.max_length:,}",
        f"training       {length}; {rows_per_step} rows × {args.max_length:,} tokens a step",
        f"precision      {precision} on {training.world_size} × {training.device}",
        f"memory         about {memory} per device, weights unsharded",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    run_main(main)
