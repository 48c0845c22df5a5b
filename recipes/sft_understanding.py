"""Fine-tune a language model with an audio vocabulary on questions about audio: MusicQA, ClothoAQA, COMPA-R (Tables 6 and 8).

    accelerate launch recipes/sft_understanding.py --model runs/demo/lm_base --tokens runs/demo/tokens --output_dir runs/demo/lm \\
        --musicqa DATA/FinetuneMusicQA.json --musicqa_audio DATA/audios \\
        --clothoaqa DATA/clotho_aqa_train.csv --clothoaqa_audio DATA/audio_files \\
        --compa_r DATA/compa_r_train.json --compa_r_audio DATA

Any subset of the data sets will do; --model is the output of recipes/extend_vocabulary.py, --tokens of recipes/tokenize_corpus.py.
An interrupted run goes on from its last checkpoint when the same command is given again. OUTPUT_DIR ends as a complete checkpoint.
"""

import json
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alm.arguments import parse_with_trainer_arguments, run_main

if TYPE_CHECKING:
    from alm.data.example import Example, ReadReport
    from alm.data.sequences import SequenceBuilder, SequenceReport

MANIFEST = "manifest.json"


@dataclass
class UnderstandingArguments:
    model: str = field(metadata={"help": "checkpoint with an audio vocabulary: folder or Hub id"})
    tokens: str = field(metadata={"help": "token store of recipes/tokenize_corpus.py"})
    output_dir: str = field(metadata={"help": "folder of the trained model, its checkpoints and its log"})
    musicqa: str | None = field(default=None, metadata={"help": "MusicQA: FinetuneMusicQA.json"})
    musicqa_audio: str | None = field(default=None, metadata={"help": "MusicQA: folder of the audio"})
    clothoaqa: str | None = field(default=None, metadata={"help": "ClothoAQA: clotho_aqa_train.csv"})
    clothoaqa_audio: str | None = field(default=None, metadata={"help": "ClothoAQA: folder of the audio"})
    compa_r: str | None = field(default=None, metadata={"help": "COMPA-R: compa_r_train.json"})
    compa_r_audio: str | None = field(default=None, metadata={"help": "COMPA-R: folder that holds the audio"})
    learning_rate: float = field(default=1e-5, metadata={"help": "highest learning rate (Table 6)"})
    max_steps: int = field(default=10_000, metadata={"help": "optimiser steps (Table 6)"})
    max_length: int = field(default=2048, metadata={"help": "tokens of a packed row, and most of one conversation"})
    questions_per_conversation: int = field(
        default=1,
        metadata={"help": "most questions about a clip behind one copy of its audio; 1: each with its own, as the paper"},
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
        default="auto", metadata={"help": "auto (the last checkpoint of OUTPUT_DIR if there is one), none, or a folder"}
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
    from alm.data.sequences import SequenceBuilder, SequenceReport
    from alm.data.tokens import TokenStore
    from alm.training.sft import build_trainer, save_final

    output = Path(args.output_dir)
    looking = bool(args.dry_run or args.preview)
    checkpoint = None if looking else starting_point(args, training)
    model, processor = load_checkpoint(args.model, dtype=torch.float32, check_codec=False)
    builder = SequenceBuilder(
        processor,
        TokenStore.open(args.tokens),
        min(args.max_length, processor.max_length or args.max_length),
        args.questions_per_conversation,
        args.too_long,
        args.seed,
        args.max_missing,
    )
    if args.preview:
        print_preview(args, builder)
        return
    sequences, counts = output / "sequences" / "sequences.arrow", output / "sequences" / "counts.json"
    if training.process_index == 0:
        read, made = [], SequenceReport()
        rows = builder.build(examples(args, read), made)
        if looking:
            made.rows = sum(1 for _ in rows)
        else:
            build(rows, sequences, counts, made, checkpoint)
        print_plan(args, training, model, read, made)
    if looking:
        return
    training.distributed_state.wait_for_everyone()

    trainer = build_trainer(model, processor, Dataset.from_file(str(sequences)), training, args.attention)
    result = trainer.train(resume_from_checkpoint=checkpoint)
    save_final(trainer, processor)
    if trainer.is_world_process_zero():
        finish(output, args, training, builder, json.loads(counts.read_text()), result.metrics)
