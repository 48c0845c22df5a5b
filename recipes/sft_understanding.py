"""Fine-tune a language model with an audio vocabulary on questions about audio: MusicQA, ClothoAQA, COMPA-R (Tables 6 and 8).

    accelerate launch recipes/sft_understanding.py --model runs/demo/lm_base --tokens runs/demo/tokens --output_dir runs/demo/lm \\
        --musicqa DATA/FinetuneMusicQA.json --musicqa_audio DATA/audios \\
        --clothoaqa DATA/clotho_aqa_train.csv --clothoaqa_audio DATA/audio_files \\
        --compa_r DATA/compa_r_train.json --compa_r_audio DATA

Any subset of the data sets will do; --model is the output of recipes/extend_vocabulary.py, --tokens of recipes/tokenize_corpus.py.
An interrupted run goes on from its last checkpoint when the same command is given again. OUTPUT_DIR ends as a complete checkpoint.
With --lora_rank 32 low-rank updates and the rows of the new tokens are trained; OUTPUT_DIR ends as a complete, merged checkpoint all the
same, with the adapter in OUTPUT_DIR/adapter.
"""

import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from alm.arguments import parse_with_trainer_arguments, run_main

if TYPE_CHECKING:
    from peft import LoraConfig

    from alm.checkpoint import LoadedCheckpoint
    from alm.data.example import Example, ReadReport
    from alm.data.sequences import SequenceReport
    from alm.data.tokens import TokenStore
    from alm.vocabulary import AudioVocabulary


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
    lora_rank: int = field(default=0, metadata={"help": "rank of LoRA; 0: full fine-tuning, as the paper"})
    lora_alpha: int | None = field(default=None, metadata={"help": "LoRA's alpha; twice the rank unless given"})
    lora_dropout: float = field(default=0.0, metadata={"help": "dropout before LoRA's updates"})
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
        if self.lora_rank < 0 or (self.lora_rank == 0 and (self.lora_alpha is not None or self.lora_dropout)):
            raise ValueError("--lora_alpha and --lora_dropout need a --lora_rank of 1 or more; 0 is full fine-tuning")
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


class Sources(NamedTuple):
    """Where sequences come from, and what reading and building them has counted so far."""

    rows: "Iterator[dict[str, list[int]]]"
    store: "TokenStore"
    read: "list[ReadReport]"
    report: "SequenceReport"


def main(argv: list[str] | None = None) -> None:
    args, training = parse_with_trainer_arguments(UnderstandingArguments, argv, __doc__, trainer_arguments, DEFAULTS)
    from alm.training import run

    looking = args.dry_run or args.preview > 0
    output, ranks = Path(args.output_dir), training.distributed_state
    checkpoint = None if looking else run.begin(output, ranks, args.overwrite_output, args.resume_from_checkpoint)
    finished = checkpoint if run.is_complete(checkpoint, training.max_steps) else None
    model, processor = load_model(args, training, checkpoint, finished)
    sources = open_sources(args, processor)
    if looking:
        show(args, training, model, processor, sources)
        return
    if ranks.is_main_process:
        keep_sequences(sources, sequences_file(output), going_on=checkpoint is not None)
        print(plan(args, training, model, sources))
        print(f"going on from {checkpoint}" if checkpoint else "starting from the first step")
    ranks.wait_for_everyone()
    train(args, training, model, processor, sources, checkpoint, finished)


def load_model(
    args: UnderstandingArguments, training: Any, checkpoint: str | None, finished: str | None
) -> "LoadedCheckpoint":
    """The model to train and its processor; the trained one where a run was `finished` but for its last files."""
    import torch

    from alm.checkpoint import LoadedCheckpoint, load_checkpoint
    from alm.training.lora import require_same_tuning, with_lora
    from alm.training.run import require_same_contract

    # frozen weights stay as they are stored where bfloat16 computes anyway; trained ones are float32
    dtype = None if args.lora_rank and training.bf16 else torch.float32
    start = args.model if args.lora_rank else finished or args.model
    model, processor = load_checkpoint(start, dtype=dtype, check_codec=False)
    require_same_contract(checkpoint, processor.vocabulary)
    config = lora(args, processor.vocabulary)
    require_same_tuning(checkpoint, config, args.model)
    if config is not None:
        model = with_lora(model, config, args.model, training, finished)
    return LoadedCheckpoint(model, processor)


def lora(args: UnderstandingArguments, vocabulary: "AudioVocabulary") -> "LoraConfig | None":
    from alm.adapters import lora_config

    return lora_config(vocabulary, args.lora_rank, args.lora_alpha, args.lora_dropout) if args.lora_rank else None


def open_sources(args: UnderstandingArguments, processor: Any) -> Sources:
    from alm.data.sequences import SequenceBuilder, SequenceReport
    from alm.data.tokens import TokenStore

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
    return Sources(builder.build(examples(args, read), report), store, read, report)


def show(args: UnderstandingArguments, training: Any, model: Any, processor: Any, sources: Sources) -> None:
    """What --preview or --dry_run asks for; writes nothing."""
    from alm.data.sequences import preview

    if args.preview:
        print("\n\n".join(preview(row, processor) for row in islice(sources.rows, args.preview)))
        return
    for _ in sources.rows:
        pass  # the builder counts them
    print(plan(args, training, model, sources))


def sequences_file(output: Path) -> Path:
    from alm.training import run

    return output / run.SEQUENCES / "sequences.arrow"


def keep_sequences(sources: Sources, file: Path, going_on: bool) -> None:
    """Write all sequences; a run that goes on must find those that it began with."""
    from alm.data.sequences import write_sequences
    from alm.training import run

    digest = write_sequences(sources.rows, file)
    run.require_same_data(file.with_suffix(".json"), digest, going_on)


def train(
    args: UnderstandingArguments,
    training: Any,
    model: Any,
    processor: Any,
    sources: Sources,
    checkpoint: str | None,
    finished: str | None,
) -> None:
    """Train what is left to train, save, and write the manifest last."""
    from datasets import Dataset

    from alm.training import run
    from alm.training.memory import ParameterCount
    from alm.training.sft import build_trainer, save_final

    output = Path(args.output_dir)
    sequences = Dataset.from_file(str(sequences_file(output)))
    trainer = build_trainer(model, processor, sequences, training, args.attention)
    parameters = ParameterCount.of(model)
    metrics = {} if finished else trainer.train(resume_from_checkpoint=checkpoint).metrics
    save_final(trainer)
    if not training.distributed_state.is_main_process:
        return
    config = lora(args, processor.vocabulary)
    parts = {
        "recipe": Path(__file__).name,
        "vocabulary": processor.vocabulary.hash,
        "token_store": sources.store.contract,
        "files": {path: run.file_digest(path) for path in args.files().values()},
        "read": [vars(one) for one in sources.read],
        "sequences": {**vars(sources.report), "packed_rows": len(trainer.train_dataset)},
        "parameters": {"total": parameters.total, "trained": parameters.trained},
        "lora": config and {"rank": config.r, "alpha": config.lora_alpha, "dropout": config.lora_dropout},
        "arguments": asdict(args),
        "trainer": training.to_dict(),
        "training": metrics,
    }
    run.write_manifest(output, parts, sys.argv)
    shutil.rmtree(output / run.SEQUENCES)
    print(f"saved to {output}" + (f", the adapter to {output / run.ADAPTER}" if config else ""))


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


def plan(args: UnderstandingArguments, training: Any, model: Any, sources: Sources) -> str:
    """What a run does, in words."""
    from alm.training.memory import ParameterCount, estimate_memory

    parameters, report = ParameterCount.of(model), sources.report
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
    tuning = f"LoRA of rank {args.lora_rank} and the new rows" if args.lora_rank else "full fine-tuning"
    lines = [
        f"model          {args.model}, {parameters.total:,} parameters, {model.config.vocab_size:,} rows",
        f"trained        {parameters.trained:,} parameters: {tuning}",
    ]
    for one in sources.read:
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
