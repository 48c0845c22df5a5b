"""Flags that every training of a language model has; light, so that `--help` appears at once."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alm.arguments import option

if TYPE_CHECKING:
    from collections.abc import Mapping

    from alm.processing import AudioLanguageProcessor
    from alm.training.data import DataSet
    from alm.training.held_out_text import HeldOutText
    from alm.training.text_loss import TextLoss


# the paper gives steps and learning rates; the rest is ours (docs/paper.md). `--help_all` lists every flag
DEFAULTS: dict[str, Any] = {
    "packing": True,
    "per_device_train_batch_size": 8,
    "lr_scheduler_type": "cosine",
    "warmup_steps": 0.03,
    "save_steps": 500,
    "save_total_limit": 2,
    "report_to": "none",
}


# the same of the codec's recipes, beside what Table 5 and others give
CODEC_DEFAULTS: dict[str, Any] = {
    "save_steps": 1_000,
    "save_total_limit": 2,
    "logging_steps": 50,
    "report_to": "none",
    "remove_unused_columns": False,
}


def require_positive(flag: str, value: float | None) -> None:
    """Raise `ValueError` for a number given that is 0 or less."""
    if value is not None and value <= 0:
        raise ValueError(f"{flag} must be more than 0, got {value:g}")


@dataclass(kw_only=True)
class MachineArguments:
    """Flags of a plan: for this machine or another one."""

    effective_batch: int | None = option(
        None,
        "rows or crops a step over all processes: sets the accumulation that is not given, an error where it cannot",
    )
    machine: str | None = option(
        None, "dry run for the machine of this `accelerate launch --config_file`, on any other; data may be left out"
    )
    gpu_memory: float | None = option(
        None, "GiB of the GPU; a dry run whose plan needs more than nine tenths of it is an error"
    )
    dry_run: bool = option(False, "print the plan and stop")

    def __post_init__(self) -> None:
        if self.machine and not self.dry_run:
            raise ValueError("--machine plans for another machine; it needs --dry_run")
        require_positive("--effective_batch", self.effective_batch)
        require_positive("--gpu_memory", self.gpu_memory)


@dataclass(kw_only=True)
class RunArguments:
    """What is trained, from what to where, how it goes on, and what is measured beside it."""

    model: str = field(metadata={"help": "checkpoint with an audio vocabulary: folder or Hub id"})
    output_dir: str = field(metadata={"help": "folder of the trained model, its checkpoints and its log"})
    tokens: str | None = field(default=None, metadata={"help": "token store of recipes/tokenize_corpus.py"})
    lora_rank: int = field(default=0, metadata={"help": "rank of LoRA; 0: full fine-tuning, as the paper"})
    lora_alpha: int | None = field(default=None, metadata={"help": "LoRA's alpha; twice the rank unless given"})
    text_loss: str | None = field(
        default=None,
        metadata={
            "help": "held-out text, named like --replay's in the recipes: its loss before and after training is reported"
        },
    )
    seed: int = field(default=42, metadata={"help": "seed of the order of data, and of what is drawn"})
    resume_from_checkpoint: str = field(
        default="auto", metadata={"help": "auto (the last checkpoint of OUTPUT_DIR if there is one), true, or a folder"}
    )
    overwrite_output: bool = field(default=False, metadata={"help": "start afresh where OUTPUT_DIR holds a run"})
    tokens_per_second: float | None = field(
        default=None, metadata={"help": "throughput of all devices together, from which a dry run tells the days"}
    )

    def __post_init__(self) -> None:
        if self.lora_rank < 0 or (self.lora_rank == 0 and self.lora_alpha is not None):
            raise ValueError(
                f"--lora_rank {self.lora_rank}, --lora_alpha {self.lora_alpha}: LoRA's flags need a --lora_rank of 1 or more; "
                "0 is full fine-tuning"
            )
        require_positive("--tokens_per_second", self.tokens_per_second)

    def held_out_text(self, processor: "AudioLanguageProcessor") -> "HeldOutText | None":
        """The text of --text_loss, where it is given."""
        from alm.training.held_out_text import HeldOutText

        return None if self.text_loss is None else HeldOutText.read(self.text_loss, processor)

    def text_plan(self, processor: "AudioLanguageProcessor") -> str:
        """What --text_loss will do, in words; empty without it. Raises what reading the text does, before anything takes long."""
        text = self.held_out_text(processor)
        if text is None:
            return ""
        return f"text loss      {text.tokens:,} tokens of {text.source}, before the first step and after the last"

    def add_text_loss(
        self, trainer: Any, processor: "AudioLanguageProcessor", folder: Path, going_on: bool
    ) -> "TextLoss | None":
        """Let a trainer measure --text_loss, where it is given; what is found is kept in `folder`."""
        from alm.training.text_loss import TextLoss

        if (text := self.held_out_text(processor)) is None:
            return None
        measure = TextLoss(trainer, text, processor, folder, going_on)
        trainer.add_callback(measure)
        return measure


@dataclass
class LanguageModelArguments(MachineArguments, RunArguments):
    """Flags that all recipes share which train on examples."""

    max_length: int = field(default=2048, metadata={"help": "tokens of a packed row, and most of one conversation"})
    lora_dropout: float = field(default=0.0, metadata={"help": "dropout before LoRA's updates"})
    quantize_base: bool = field(
        default=False,
        metadata={"help": "LoRA on a base in 4 bits (bitsandbytes); what is saved is merged into the base as it was"},
    )
    too_long: str = field(
        default="error",
        metadata={
            "help": "conversations beyond max_length: error, skip, or crop (the end of the clip that is heard); counted",
            "choices": ["error", "skip", "crop"],
        },
    )
    max_missing: float = field(default=0.1, metadata={"help": "share of examples whose audio may be missing"})
    replay: str | None = field(
        default=None,
        metadata={
            "help": "text alone that keeps the model's language: JSON lines, a text file, Parquet or a Hub id (text=PATH,split=…)"
        },
    )
    replay_share: float = field(default=0.1, metadata={"help": "share of the rows that --replay has"})
    attention: str = field(
        default="auto",
        metadata={
            "help": "how packed documents are kept apart; auto: flash_attention_2 where it is installed, else by_document",
            "choices": ["auto", "by_document", "sdpa", "flash_attention_2"],
        },
    )
    samples: list[str] = field(
        default_factory=list,
        metadata={
            "help": "requests answered during training: speak=TEXT, sound=CAPTION, ask=QUESTION, ask=FILE|QUESTION"
        },
    )
    samples_steps: int = field(default=500, metadata={"help": "steps between --samples; they are made at the end, too"})
    preview: int = field(default=0, metadata={"help": "print so many sequences, ⟦labelled parts⟧ marked, and exit"})

    def __post_init__(self) -> None:
        RunArguments.__post_init__(self)
        MachineArguments.__post_init__(self)
        if self.samples_steps < 1:
            raise ValueError(f"--samples_steps must be 1 or more, got {self.samples_steps}")
        if self.lora_dropout and not self.lora_rank:
            raise ValueError(f"--lora_dropout {self.lora_dropout:g} needs a --lora_rank of 1 or more")
        if self.quantize_base and not self.lora_rank:
            raise ValueError("--quantize_base freezes the base in 4 bits; it needs a --lora_rank of 1 or more")

    @property
    def questions(self) -> int:
        """Most questions about a clip behind one copy of its audio."""
        return 1


@dataclass
class DataArguments(LanguageModelArguments):
    """Flags of the recipes that take any data set of the catalogue."""

    data: list[str] = field(
        default_factory=list,
        metadata={
            "help": "data sets, each NAME=PATH with its reader's options, its tasks and its weight behind commas: "
            "libritts=DATA/LibriTTS,split=train-clean-100,tasks=speak+transcribe,weight=2 (recipes/list_data.py shows what there is)"
        },
    )
    guard: list[str] = field(
        default_factory=list, metadata={"help": "metadata files of test sets whose clips are kept out of training"}
    )

    def data_sets(self, usual: "Mapping[str, tuple[str, ...]]") -> "list[DataSet]":
        """The data sets named, each under its tasks or the `usual` ones of its kind of text."""
        from alm.data.leaks import LeakGuard
        from alm.training.sources import data_sets

        guard = LeakGuard.from_files(self.guard) if self.guard else None
        return data_sets(self.data, usual, self.max_missing, guard)


def trainer_arguments() -> type:
    """The class of the trainer's own flags, imported when it is needed."""
    from alm.training.sft import SequenceConfig

    return SequenceConfig


def codec_trainer_arguments() -> type:
    """The same for the codec's recipes."""
    from alm.training.codec_run import CodecTrainingArguments

    return CodecTrainingArguments
