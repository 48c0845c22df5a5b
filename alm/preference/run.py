"""One run of preference training: data, reference, rewards, trainer, and the life of its output folder."""

import hashlib
import json
import shutil
import sys
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from alm.data.example import DataError
from alm.preference.arguments import DPO, GRPO, PreferenceArguments, require_agreement

if TYPE_CHECKING:
    from alm.checkpoint import LoadedCheckpoint
    from alm.training.outline import Outline
    from alm.training.plan import Plan


class PreferenceRows(NamedTuple):
    """What is trained on, what is held out (None: nothing), and for GRPO what kind of turn both ask for."""

    data: Any
    held_out: Any
    kind: str | None

    def digest(self, settings: Any) -> str:
        """16 hexadecimal digits over all rows as they are trained on, and over `settings`."""
        total = hashlib.sha256(json.dumps(settings).encode())
        for rows in (self.data, self.held_out):
            total.update(b"\n")
            for row in rows or ():
                total.update(json.dumps(row, sort_keys=True).encode())
        return total.hexdigest()[:16]


class PreferenceRun:
    """One run: the recipe makes it of its arguments and calls `start`."""

    def __init__(self, args: PreferenceArguments, training: Any, recipe: str) -> None:
        from alm.preference.plan import settle_turns
        from alm.training.run import settle_layout

        self.args, self.training, self.recipe = args, training, recipe
        self.output, self.ranks = Path(args.output_dir), training.distributed_state
        self.labels: dict[str, str] = {}
        accumulated = training.gradient_accumulation_steps
        self.layout = settle_layout(args, training)
        if args.method == GRPO:
            settle_turns(training, accumulated, self.layout)
        require_agreement(args, training, self.layout.processes)

    def start(self) -> None:
        """Read the data and train, or print the plan with --dry_run."""
        import torch

        from alm.checkpoint import load_checkpoint
        from alm.data.tokens import TokenStore
        from alm.training import run
        from alm.training.lora import require_same_tuning
        from alm.training.outline import outline
        from alm.training.processes import whole_models
        from alm.training.saving import writing
        from alm.training.spread import require_same_spread

        args = self.args
        store = TokenStore.open(args.tokens) if args.tokens else None
        if args.dry_run:
            self._look(store)
            return
        checkpoint = run.begin(self.output, self.ranks, args.overwrite_output, args.resume_from_checkpoint)
        require_same_spread(checkpoint, self.training, draws=True)
        # frozen weights stay as they are stored where bfloat16 computes anyway; trained ones are float32
        dtype = None if args.lora_rank and self.layout.half_precision else torch.float32
        finished = None if args.lora_rank or not run.is_complete(checkpoint, self.training.max_steps) else checkpoint
        with whole_models(self.training) if finished else nullcontext():  # what is only saved again needs no shards
            loaded = load_checkpoint(finished or args.model, dtype=dtype, check_codec=False)
        run.require_same_contract(checkpoint, loaded.processor.vocabulary)
        require_same_tuning(checkpoint, self._lora(loaded.processor), args.model)
        rows = self._rows(loaded.processor, store)
        begun = self._begin(rows, store, checkpoint is not None)
        if self.ranks.is_main_process:
            shape = outline(args.model, args, self.training, self.layout)
            told = [self._plan(shape, rows).text, *filter(None, [args.text_plan(loaded.processor)])]
            print(*told, f"going on from {checkpoint}" if checkpoint else "starting from the first step", sep="\n")
        with writing(f"a file in {self.output}", self.output):
            self._train(self._trainer(loaded, rows), rows.held_out, checkpoint, begun)

    def _look(self, store: Any) -> None:
        """What --dry_run asks for, without the weights; writes nothing that stays."""
        from alm.preference.judges import grammar_of
        from alm.preference.questions import AUDIO
        from alm.training.outline import outline, processor_alone

        args = self.args
        if not self.ranks.is_main_process:
            return
        shape = outline(args.model, args, self.training, self.layout)
        rows, text_plan = None, ""
        if args.data:
            processor = processor_alone(args.model, whole=not args.machine)
            rows, text_plan = self._rows(processor, store), args.text_plan(processor)
        elif {"wer", "clap"} & set(args.rewards):
            grammar_of(args, self.training, shape.vocabulary, AUDIO)
        plan = self._plan(shape, rows)
        print(plan.text, *filter(None, [text_plan]), sep="\n")
        plan.require_fit(args.gpu_memory)

    def _plan(self, shape: "Outline", rows: "PreferenceRows | None") -> "Plan":
        from alm.preference.plan import Rows, plan

        return plan(self.args, self.training, self.layout, shape, rows and Rows.of(rows.data, len(rows.held_out or ())))

    def _rows(self, processor: Any, store: Any) -> "PreferenceRows":
        """All rows. Raises `DataError` where those held out ask for other turns, a reward has nothing to judge by, or they are too few, and
        `LengthError` where a prompt leaves no room for its turn.
        """
        from alm.data.sequences import require_store
        from alm.generation.tasks import require_room
        from alm.preference.judges import grammar_of, require_judged, require_right_kind
        from alm.preference.plan import require_questions

        args = self.args
        assert args.data is not None
        if store is not None:
            require_store(processor.vocabulary, store)
        data, kind = self._read(args.data, processor, store)
        held_out, held_kind = self._read(args.held_out, processor, store) if args.held_out else (None, kind)
        if held_kind != kind:
            raise DataError(f"{args.held_out} asks for {held_kind} and {args.data} for {kind}; a run has one grammar")
        if kind is not None:
            require_right_kind(args.rewards, kind)
            require_judged(args.rewards, data, args.data)
            grammar_of(args, self.training, processor.vocabulary, kind)  # settles how long a turn may be
            longest = max(max(some["prompt_tokens"]) for some in (data, held_out) if some is not None)
            room = self.training.max_completion_length
            require_room(processor, longest, room, "--max_completion_length (answers) or --max_seconds (audio)")
            require_questions(len(data), self.training, args.data)
        return PreferenceRows(data, held_out, kind)

    def _read(self, file: str, processor: Any, store: Any) -> tuple[Any, str | None]:
        """Rows of a file, and for GRPO what kind of turn they ask for."""
        if self.args.method == DPO:
            from alm.preference.pairs import read_pairs

            return read_pairs(file, processor, store, self.args.max_length), None
        from alm.preference.questions import read_questions

        return read_questions(file, processor, store, self.args.audio, self.args.max_length)

    def _begin(self, rows: "PreferenceRows", store: Any, going_on: bool) -> dict[str, Any]:
        """What the manifest says of model and data. Raises `DataError` where a run would go on with others, or be rewarded otherwise."""
        from alm.training import run
        from alm.training.waiting import main_process_first

        args, training, begun = self.args, self.training, dict[str, Any]()
        with main_process_first(self.ranks):
            if not self.ranks.is_main_process:
                return begun
            base = run.model_identity(args.model)  # the reference, too
            files = {name: run.file_digest(name) for name in filter(None, [args.data, args.held_out])}
            weights = getattr(training, "reward_weights", None)
            rewarded = [args.rewards, weights, args.asr, args.clap, args.grammar, args.min_seconds, args.max_seconds]
            if args.method == GRPO:  # which questions a step has
                rewarded += [training.num_generations, training.num_iterations, training.steps_per_generation]
            settings = [args.method, base["weights"], args.seed, rewarded if args.method == GRPO else None]
            digest = rows.digest(settings)
            (self.output / run.SEQUENCES).mkdir(exist_ok=True)
            run.require_same_data(self.output / run.SEQUENCES / "data.json", digest, going_on)
            begun = {
                "base_model": base,
                "token_store": store and store.contract,
                "data": {"digest": digest},
                "files": files,
            }
        return begun

    def _trainer(self, loaded: "LoadedCheckpoint", rows: "PreferenceRows") -> Any:
        from alm.preference.trainers import PairTrainer, QuestionTrainer
        from alm.training.lora import base_reference
        from alm.training.stopping import StopAtSignal
        from alm.training.training_log import JsonLinesLog

        config = self._lora(loaded.processor)
        loaded.model.name_or_path = base_reference(self.args.model)  # peft takes the adapter's base from here
        common = {
            "args": self.training,
            "train_dataset": rows.data,
            "eval_dataset": rows.held_out,
            "processor": loaded.processor,
            "peft_config": config,
            "callbacks": [JsonLinesLog(self.output), StopAtSignal()],
        }
        if rows.kind is None:
            trainer: Any = PairTrainer(loaded.model, ref_model=self._reference(), **common)
        else:
            from alm.preference.judges import Judges, grammar_of

            grammar = grammar_of(self.args, self.training, loaded.processor.vocabulary, rows.kind)
            judges = Judges.of(self.args, loaded.processor, grammar, str(self.training.device))
            self.labels = judges.labels
            under = grammar if self.args.grammar else None
            trainer = QuestionTrainer(loaded.model, reward_funcs=judges.rewards, grammar=under, **common)
        if config is not None:
            # TRL's loss reads the head's weight and bias; peft's wrapper of trained rows (0.21) passes on the weight alone
            trainer.model.get_output_embeddings().bias = None
        return trainer

    def _lora(self, processor: Any) -> Any:
        from alm.adapters import lora_config

        rank, alpha = self.args.lora_rank, self.args.lora_alpha
        return lora_config(processor.vocabulary, rank, alpha) if rank else None

    def _reference(self) -> Any:
        """A frozen copy of the first model; with LoRA the model without its adapter is that, and none is kept."""
        import torch

        from alm.checkpoint import load_checkpoint

        if self.args.lora_rank:
            return None
        return load_checkpoint(self.args.model, dtype=torch.float32, check_codec=False).model.requires_grad_(False)

    def _train(self, trainer: Any, held_out: Any, checkpoint: str | None, begun: dict[str, Any]) -> None:
        """Train what is left to train, save, and write the manifest last, the parts that were known when training `begun` in it."""
        from alm.preference.held_out import HeldOutRows
        from alm.training import run
        from alm.training.sft import save_final

        finished = run.is_complete(checkpoint, self.training.max_steps)
        text = self.args.add_text_loss(trainer, trainer.processor, self.output / run.SEQUENCES, checkpoint is not None)
        measured = HeldOutRows(trainer, self.output / run.SEQUENCES / "held_out.json", checkpoint is not None)
        if held_out is not None:
            trainer.add_callback(measured)
        if checkpoint is not None and finished:
            run.mend_log(self.output, checkpoint, self.ranks)
            if self.args.lora_rank:
                trainer._load_from_checkpoint(checkpoint)
            metrics: dict[str, Any] = {}
        else:
            metrics = trainer.train(resume_from_checkpoint=checkpoint).metrics
        save_final(trainer)
        if not self.ranks.is_main_process:
            return
        parts = {
            "recipe": self.recipe,
            "vocabulary": trainer.processor.vocabulary.hash,
            "codec": trainer.processor.vocabulary.codec_fingerprint,
            **begun,
            "rewards": self.labels,
            "held_out": measured.found,
            "arguments": asdict(self.args),
            "trainer": self.training.to_dict(),
            "training": metrics,
            "text_loss": text and text.found,
        }
        run.write_manifest(self.output, parts, sys.argv)
        shutil.rmtree(self.output / run.SEQUENCES)
        if text:
            print(text)
        print(f"saved to {self.output}")
