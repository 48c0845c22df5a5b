"""What every recipe of the language model does: load, make sequences, say the plan, train, save. The recipes choose data and defaults."""

import shutil
import sys
import tempfile
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alm.arguments import ConfigFileError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from peft import LoraConfig

    from alm.checkpoint import LoadedCheckpoint
    from alm.data.rows import PackedRows
    from alm.data.tokens import TokenStore
    from alm.processing import AudioLanguageProcessor
    from alm.training.data import DataReport, DataSet, SequenceOptions
    from alm.training.outline import Outline
    from alm.training.plan import Plan

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


@dataclass
class LanguageModelArguments:
    """Flags that all recipes of the language model share."""

    model: str = field(metadata={"help": "checkpoint with an audio vocabulary: folder or Hub id"})
    output_dir: str = field(metadata={"help": "folder of the trained model, its checkpoints and its log"})
    tokens: str | None = field(default=None, metadata={"help": "token store of recipes/tokenize_corpus.py"})
    max_length: int = field(default=2048, metadata={"help": "tokens of a packed row, and most of one conversation"})
    effective_batch: int | None = field(
        default=None,
        metadata={
            "help": "rows a step over all processes: sets the accumulation that is not given, an error where it cannot"
        },
    )
    lora_rank: int = field(default=0, metadata={"help": "rank of LoRA; 0: full fine-tuning, as the paper"})
    lora_alpha: int | None = field(default=None, metadata={"help": "LoRA's alpha; twice the rank unless given"})
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
    attention: str = field(
        default="auto", metadata={"help": "auto, by_document, sdpa or flash_attention_2; all see documents apart"}
    )
    seed: int = field(default=42, metadata={"help": "seed of the order of data"})
    resume_from_checkpoint: str = field(
        default="auto", metadata={"help": "auto (the last checkpoint of OUTPUT_DIR if there is one), true, or a folder"}
    )
    overwrite_output: bool = field(default=False, metadata={"help": "start afresh where OUTPUT_DIR holds a run"})
    samples: list[str] = field(
        default_factory=list,
        metadata={
            "help": "requests answered during training: speak=TEXT, sound=CAPTION, ask=QUESTION, ask=FILE|QUESTION"
        },
    )
    samples_steps: int = field(default=500, metadata={"help": "steps between --samples; they are made at the end, too"})
    preview: int = field(default=0, metadata={"help": "print so many sequences, ⟦labelled parts⟧ marked, and exit"})
    dry_run: bool = field(
        default=False,
        metadata={"help": "read the data and the model's config.json, print the plan (steps, memory), and exit"},
    )
    machine: str | None = field(
        default=None,
        metadata={
            "help": "dry run for the machine of this `accelerate launch --config_file`, on any other; data may be left out"
        },
    )
    gpu_memory: float | None = field(
        default=None,
        metadata={"help": "GiB of the GPU; a dry run whose plan needs more than nine tenths of it is an error"},
    )
    tokens_per_second: float | None = field(
        default=None, metadata={"help": "throughput of all devices together, from which a dry run tells the days"}
    )

    def __post_init__(self) -> None:
        if self.lora_rank < 0 or (self.lora_rank == 0 and (self.lora_alpha is not None or self.lora_dropout)):
            raise ValueError("--lora_alpha and --lora_dropout need a --lora_rank of 1 or more; 0 is full fine-tuning")
        if self.quantize_base and not self.lora_rank:
            raise ValueError("--quantize_base freezes the base in 4 bits; it needs a --lora_rank of 1 or more")
        if self.machine and not self.dry_run:
            raise ValueError("--machine plans for another machine; it needs --dry_run")

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
    replay: str | None = field(
        default=None, metadata={"help": "text alone that keeps the model's language: JSON lines or a text file"}
    )
    replay_share: float = field(default=0.1, metadata={"help": "share of the rows that --replay has"})

    def data_sets(self, usual: "Mapping[str, tuple[str, ...]]") -> "list[DataSet]":
        """The data sets named, each under its tasks or the `usual` ones of its kind of text."""
        from alm.data.leaks import LeakGuard
        from alm.training.sources import data_sets

        guard = LeakGuard.from_files(self.guard) if self.guard else None
        return data_sets(self.data, usual, self.max_missing, guard, self.replay, self.replay_share)


def trainer_arguments() -> type:
    """The class of the trainer's own flags, imported when it is needed."""
    from alm.training.sft import SequenceConfig

    return SequenceConfig


class LanguageModelRun:
    """One run: `main` of a recipe makes it of its arguments and data sets, and calls `start`."""

    def __init__(self, args: LanguageModelArguments, training: Any, sets: "list[DataSet]", recipe: str) -> None:
        from alm.training.layout import Layout
        from alm.training.run import settle_batch

        if not sets and not args.machine:
            raise ConfigFileError("no data sets given; --help lists the flags that name them")
        half = bool(training.bf16 or training.fp16)
        self.layout = Layout.read(args.machine, half) if args.machine else Layout.of(training)
        settle_batch(args.effective_batch, training, self.layout.processes)
        self.args, self.training, self.sets, self.recipe = args, training, sets, recipe
        self.output, self.ranks = Path(args.output_dir), training.distributed_state

    @property
    def options(self) -> "SequenceOptions":
        """How examples become sequences."""
        from alm.training.data import SequenceOptions

        args: Any = self.args
        return SequenceOptions(args.max_length, args.questions, args.too_long, args.seed, args.max_missing)

    @property
    def rows_per_step(self) -> int:
        """Packed rows of one step, over all processes."""
        parts = (self.training.per_device_train_batch_size, self.training.gradient_accumulation_steps)
        return int(parts[0] * parts[1] * self.layout.processes)

    def start(self) -> None:
        """Do what the arguments ask for: show a preview or the plan, or train."""
        from alm.data.tokens import TokenStore

        store = TokenStore.open(self.args.tokens) if self.args.tokens else None
        if self.args.preview or self.args.dry_run:
            self._look(store)
            return
        from alm.training import run

        checkpoint = run.begin(self.output, self.ranks, self.args.overwrite_output, self.args.resume_from_checkpoint)
        finished = checkpoint if run.is_complete(checkpoint, self.training.max_steps) else None
        loaded = self.load(checkpoint, finished)
        report = self._write_tables(loaded, store)
        rows = self._open_rows(loaded.processor, store, self.output / run.SEQUENCES)
        if self.ranks.is_main_process:
            self._require_same_rows(rows, checkpoint is not None)
            print(self._plan(rows, report).text)
            print(f"going on from {checkpoint}" if checkpoint else "starting from the first step")
        self.ranks.wait_for_everyone()
        self._train(loaded, rows, report, store, checkpoint, finished)

    def load(self, checkpoint: str | None = None, finished: str | None = None) -> "LoadedCheckpoint":
        """The model to train and its processor; the trained one where a run was `finished` but for its last files."""
        import torch

        from alm.checkpoint import LoadedCheckpoint, load_checkpoint
        from alm.training.lora import four_bits, require_same_tuning, with_lora
        from alm.training.run import require_same_contract

        args = self.args
        # frozen weights stay as they are stored where bfloat16 computes anyway; trained ones are float32
        dtype = None if args.lora_rank and self.layout.half_precision else torch.float32
        start = args.model if args.lora_rank else finished or args.model
        quantization = four_bits() if args.quantize_base else None
        model, processor = load_checkpoint(start, dtype=dtype, check_codec=False, quantization=quantization)
        require_same_contract(checkpoint, processor.vocabulary)
        config = self._lora(processor)
        require_same_tuning(checkpoint, config, args.model)
        if config is not None:
            model = with_lora(model, config, args.model, self.training, finished)
        return LoadedCheckpoint(model, processor)

    def _lora(self, processor: Any) -> "LoraConfig | None":
        from alm.adapters import lora_config

        args = self.args
        if not args.lora_rank:
            return None
        return lora_config(processor.vocabulary, args.lora_rank, args.lora_alpha, args.lora_dropout)

    def _look(self, store: "TokenStore | None") -> None:
        """What --preview or --dry_run asks for, without the weights; writes nothing that stays."""
        if not self.ranks.is_main_process:
            return
        processor = self._processor() if self.sets else None
        if self.args.preview:
            self._preview(processor, store)
            return
        plan = self._plan_of_data(processor, store) if self.sets else self._plan()
        print(plan.text)
        plan.require_fit(self.args.gpu_memory)

    def _processor(self) -> "AudioLanguageProcessor":
        """The processor of a checkpoint that is examined, but not loaded; for another machine its small files are enough."""
        from alm.adapters import adapter_base, is_adapter
        from alm.checkpoint_files import local_folder
        from alm.contract import require_no_faults
        from alm.doctor import examine
        from alm.processing import AudioLanguageProcessor

        folder = local_folder(self.args.model, weights=not self.args.machine)
        if not self.args.machine:
            require_no_faults(examine(folder), self.args.model)
        return AudioLanguageProcessor.from_pretrained(adapter_base(folder) if is_adapter(folder) else folder)

    def _preview(self, processor: Any, store: "TokenStore | None") -> None:
        from alm.data.sequences import preview
        from alm.training.data import DataReport, sequences_of

        made = (
            preview(row, builder.clips, processor)
            for rows, builder in (sequences_of(one, processor, store, self.options, DataReport()) for one in self.sets)
            for row in islice(rows, -(-self.args.preview // len(self.sets)))
        )
        print("\n\n".join(islice(made, self.args.preview)))

    def _plan_of_data(self, processor: Any, store: "TokenStore | None") -> "Plan":
        from alm.training.data import write_tables

        with tempfile.TemporaryDirectory() as folder:
            report = write_tables(self.sets, processor, store, self.options, Path(folder))
            return self._plan(self._open_rows(processor, store, Path(folder)), report)

    def _write_tables(self, loaded: "LoadedCheckpoint", store: "TokenStore | None") -> "DataReport":
        """Made by one process while the others wait, who then find all tables there."""
        from alm.training.data import write_tables
        from alm.training.run import SEQUENCES

        with self.ranks.main_process_first():
            return write_tables(self.sets, loaded.processor, store, self.options, self.output / SEQUENCES)

    def _open_rows(self, processor: Any, store: "TokenStore | None", folder: Path) -> "PackedRows":
        """The rows of the whole run; with epochs given, `max_steps` is set to what they come to."""
        from alm.training.data import open_rows

        rows = open_rows(self.sets, processor, store, self.options, folder)
        if self.training.max_steps <= 0:
            self.training.max_steps = -(-int(self.training.num_train_epochs * rows.epoch_rows) // self.rows_per_step)
        rows.count = self.training.max_steps * self.rows_per_step
        return rows

    def _require_same_rows(self, rows: "PackedRows", going_on: bool) -> None:
        from alm.training import run
        from alm.training.data import data_digest

        run.require_same_data(self.output / run.SEQUENCES / "data.json", data_digest(rows), going_on)

    def _outline(self) -> "Outline":
        from alm.training.outline import outline

        return outline(self.args.model, self.args, self.training, self.layout)

    def _plan(self, rows: "PackedRows | None" = None, report: "DataReport | None" = None) -> "Plan":
        from alm.training.plan import plan

        return plan(self.args, self.training, self.layout, self._outline(), rows, report)

    def _samples(self, loaded: "LoadedCheckpoint") -> Any:
        from alm.training.samples import Request, Samples

        requests = [Request.parse(value) for value in self.args.samples]
        return Samples(requests, loaded.processor, self.output, self.training, self.args.samples_steps)

    def _train(
        self,
        loaded: "LoadedCheckpoint",
        rows: "PackedRows",
        report: "DataReport",
        store: "TokenStore | None",
        checkpoint: str | None,
        finished: str | None,
    ) -> None:
        """Train what is left to train, save, and write the manifest last."""
        from alm.data.rows import Shares
        from alm.training import run
        from alm.training.memory import ParameterCount
        from alm.training.sft import build_trainer, save_final

        trainer = build_trainer(*loaded, rows, self.training, self.args.attention)
        if self.args.samples:
            trainer.add_callback(self._samples(loaded))
        metrics = {} if finished else trainer.train(resume_from_checkpoint=checkpoint).metrics
        save_final(trainer)
        if not self.ranks.is_main_process:
            return
        config, parameters = self._lora(loaded.processor), ParameterCount.of(self._outline().model)
        parts = {
            "recipe": self.recipe,
            "vocabulary": loaded.processor.vocabulary.hash,
            "token_store": store and store.contract,
            "files": {name: run.file_digest(name) for one in self.sets for name in one.files if Path(name).is_file()},
            "read": [vars(one) for one in report.read],
            "sequences": {**vars(report.sequences), "packed_rows": rows.epoch_rows},
            "mixture": asdict(Shares.of(rows)),
            "parameters": {"total": parameters.total, "trained": parameters.trained},
            "lora": config and {"rank": config.r, "alpha": config.lora_alpha, "dropout": config.lora_dropout},
            "arguments": asdict(self.args),
            "trainer": self.training.to_dict(),
            "training": metrics,
        }
        run.write_manifest(self.output, parts, sys.argv)
        shutil.rmtree(self.output / run.SEQUENCES)
        print(f"saved to {self.output}" + (f", the adapter to {self.output / run.ADAPTER}" if config else ""))
