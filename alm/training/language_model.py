"""What every recipe of the language model does: load, make sequences, say the plan, train, save. The recipes choose data and defaults."""

import shutil
import sys
import tempfile
from contextlib import nullcontext
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alm.arguments import ConfigFileError
from alm.training.arguments import LanguageModelArguments

if TYPE_CHECKING:
    from peft import LoraConfig

    from alm.checkpoint import LoadedCheckpoint
    from alm.data.rows import PackedRows
    from alm.data.tokens import TokenStore
    from alm.training.data import DataReport, DataSet, SequenceOptions
    from alm.training.outline import Outline
    from alm.training.plan import Plan


class LanguageModelRun:
    """One run: `main` of a recipe makes it of its arguments and data sets, and calls `start`."""

    def __init__(self, args: LanguageModelArguments, training: Any, sets: "list[DataSet]", recipe: str) -> None:
        from alm.training.run import settle_layout
        from alm.training.samples import Request
        from alm.training.sources import replay_set

        if not sets and not args.machine:
            raise ConfigFileError("no data sets given; --help lists the flags that name them")
        self.layout = settle_layout(args, training)
        self.args, self.training, self.recipe = args, training, recipe
        self.sets = [*sets, *([replay_set(args.replay, args.replay_share)] if args.replay else [])]
        self.output, self.ranks = Path(args.output_dir), training.distributed_state
        self.requests = [Request.parse(value) for value in args.samples]

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
        self._require_possible()
        from alm.training import run
        from alm.training.saving import writing
        from alm.training.spread import require_same_spread

        checkpoint = run.begin(self.output, self.ranks, self.args.overwrite_output, self.args.resume_from_checkpoint)
        require_same_spread(checkpoint, self.training, draws=self.args.lora_dropout > 0)
        with writing(f"a file in {self.output}", self.output):
            self._go_on(checkpoint, store)

    def _require_possible(self) -> None:
        """Raise what would fail later anyway, before the data are read, which may take long."""
        from alm.training.attention import require_attention
        from alm.training.samples import require_one_whole_model

        require_attention(self.args.attention)
        if self.requests:
            require_one_whole_model(self.training)
        for request in self.requests:
            request.require_file()

    def _go_on(self, checkpoint: str | None, store: "TokenStore | None") -> None:
        """Make the rows and train, from a checkpoint or from the first step."""
        from alm.training import run

        finished = checkpoint if run.is_complete(checkpoint, self.training.max_steps) else None
        loaded = self.load(checkpoint, finished)
        text_plan = self.args.text_plan(loaded.processor)
        report = self._write_tables(loaded, store)
        rows = self._open_rows(loaded.processor, store, self.output / run.SEQUENCES)
        begun: dict[str, Any] = {}
        if self.ranks.is_main_process:  # before training, which may take days
            begun = {"base_model": run.model_identity(self.args.model), **self._data_parts(rows, report, store)}
            self._require_same_rows(rows, checkpoint is not None)
            print(self._plan(rows, report).text, *filter(None, [text_plan]), sep="\n")
            print(f"going on from {checkpoint}" if checkpoint else "starting from the first step")
        self.ranks.wait_for_everyone()
        self._train(loaded, rows, begun, checkpoint, finished)

    def load(self, checkpoint: str | None = None, finished: str | None = None) -> "LoadedCheckpoint":
        """The model to train and its processor; the trained one where a run was `finished` but for its last files."""
        import torch

        from alm.checkpoint import LoadedCheckpoint, load_checkpoint
        from alm.training.lora import four_bits, require_same_tuning, with_lora
        from alm.training.processes import whole_models
        from alm.training.run import require_same_contract

        args = self.args
        # frozen weights stay as they are stored where bfloat16 computes anyway, finished ones always; trained ones are float32
        stays = self.layout.half_precision if args.lora_rank else finished is not None
        dtype = None if stays else torch.float32
        start = args.model if args.lora_rank else finished or args.model
        quantization = four_bits() if args.quantize_base else None
        with whole_models(self.training) if finished else nullcontext():  # what is only saved again needs no shards
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
        from alm.training.outline import processor_alone

        processor = processor_alone(self.args.model, whole=not self.args.machine) if self.sets else None
        if self.args.preview:
            self._preview(processor, store)
            return
        plan = self._plan_of_data(processor, store) if self.sets else self._plan()
        text_plan = self.args.text_plan(processor) if processor else ""
        print(plan.text, *filter(None, [text_plan]), sep="\n")
        plan.require_fit(self.args.gpu_memory)

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
        from alm.training.waiting import main_process_first

        with main_process_first(self.ranks):
            return write_tables(self.sets, loaded.processor, store, self.options, self.output / SEQUENCES)

    def _open_rows(self, processor: Any, store: "TokenStore | None", folder: Path) -> "PackedRows":
        """The rows of the whole run; with epochs given, `max_steps` is set to what they come to."""
        from alm.training.data import open_rows
        from alm.training.run import settle_epochs

        rows = open_rows(self.sets, processor, store, self.options, folder)
        if self.training.max_steps <= 0:
            self.training.max_steps = -(-int(self.training.num_train_epochs * rows.epoch_rows) // self.rows_per_step)
        rows.count = self.training.max_steps * self.rows_per_step
        settle_epochs(self.training, -(-rows.epoch_rows // self.rows_per_step))
        return rows

    def _require_same_rows(self, rows: "PackedRows", going_on: bool) -> None:
        from alm.training import run
        from alm.training.data import data_digest

        run.require_same_data(self.output / run.SEQUENCES / "data.json", data_digest(rows), going_on)

    def _data_parts(self, rows: "PackedRows", report: "DataReport", store: "TokenStore | None") -> dict[str, Any]:
        """What the manifest says of the data: what was named, what was read, and digests of all that came of it."""
        from alm.data.rows import Shares
        from alm.training import run
        from alm.training.data import data_digest

        sets = [
            {"name": one.name, "task": one.task, "inputs": one.inputs, "sequences": source.table.description["digest"]}
            for one, source in zip(self.sets, rows.sources, strict=True)
        ]
        return {
            "token_store": store and store.contract,
            "data": {"digest": data_digest(rows), "sets": sets},
            "files": {name: run.file_digest(name) for one in self.sets for name in one.files if Path(name).is_file()},
            "read": [vars(one) for one in report.read],
            "sequences": {**vars(report.sequences), "packed_rows": rows.epoch_rows},
            "mixture": asdict(Shares.of(rows)),
        }

    def _outline(self) -> "Outline":
        from alm.training.outline import outline

        return outline(self.args.model, self.args, self.training, self.layout)

    def _plan(self, rows: "PackedRows | None" = None, report: "DataReport | None" = None) -> "Plan":
        from alm.training.plan import plan

        return plan(self.args, self.training, self.layout, self._outline(), rows, report)

    def _samples(self, loaded: "LoadedCheckpoint", trainer: Any) -> Any:
        from alm.training.samples import Samples

        every, gather = self.args.samples_steps, trainer.whole_model
        return Samples(self.requests, loaded.processor, self.output, self.training, every, gather=gather)

    def _train(
        self,
        loaded: "LoadedCheckpoint",
        rows: "PackedRows",
        begun: dict[str, Any],
        checkpoint: str | None,
        finished: str | None,
    ) -> None:
        """Train what is left to train, save, and write the manifest last, the parts that were known when training `begun` in it."""
        from alm.training import run
        from alm.training.memory import ParameterCount
        from alm.training.sft import build_trainer, save_final

        trainer = build_trainer(*loaded, rows, self.training, self.args.attention)
        text = self.args.add_text_loss(trainer, loaded.processor, self.output / run.SEQUENCES, checkpoint is not None)
        if self.args.samples:
            trainer.add_callback(self._samples(loaded, trainer))
        metrics: dict[str, Any] = {}
        if finished:
            run.mend_log(self.output, finished, self.ranks)
        else:
            metrics = trainer.train(resume_from_checkpoint=checkpoint).metrics
        save_final(trainer)
        if not self.ranks.is_main_process:
            return
        config, parameters = self._lora(loaded.processor), ParameterCount.of(self._outline().model)
        parts = {
            "recipe": self.recipe,
            "vocabulary": loaded.processor.vocabulary.hash,
            "codec": loaded.processor.vocabulary.codec_fingerprint,
            **begun,
            "parameters": {"total": parameters.total, "trained": parameters.trained},
            "lora": config and {"rank": config.r, "alpha": config.lora_alpha, "dropout": config.lora_dropout},
            "arguments": asdict(self.args),
            "trainer": self.training.to_dict(),
            "training": metrics,
            "text_loss": text and text.found,
        }
        run.write_manifest(self.output, parts, sys.argv)
        shutil.rmtree(self.output / run.SEQUENCES)
        if text:
            print(text)
        print(f"saved to {self.output}" + (f", the adapter to {self.output / run.ADAPTER}" if config else ""))
