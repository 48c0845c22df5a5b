"""One run of preference training: data, reference, rewards, trainer, and the life of its output folder."""

import json
import shutil
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alm.data.example import DataError
from alm.preference.arguments import DPO, PreferenceArguments

if TYPE_CHECKING:
    from alm.checkpoint import LoadedCheckpoint


class PreferenceRun:
    """One run: the recipe makes it of its arguments and calls `start`."""

    def __init__(self, args: PreferenceArguments, training: Any, recipe: str) -> None:
        self.args, self.training, self.recipe = args, training, recipe
        self.output, self.ranks = Path(args.output_dir), training.distributed_state
        self.labels: dict[str, str] = {}

    def start(self) -> None:
        """Read the data and train, or stop before it with --dry_run."""
        import torch

        from alm.checkpoint import load_checkpoint
        from alm.data.sequences import require_store
        from alm.data.tokens import TokenStore
        from alm.training import run
        from alm.training.lora import require_same_tuning
        from alm.training.saving import writing
        from alm.training.spread import require_same_spread
        from alm.training.waiting import main_process_first

        args = self.args
        store = TokenStore.open(args.tokens) if args.tokens else None
        # frozen weights stay as they are stored where bfloat16 computes anyway; trained ones are float32
        dtype = None if args.lora_rank and self.training.bf16 else torch.float32
        loaded = load_checkpoint(args.model, dtype=dtype, check_codec=False)
        if store is not None:
            require_store(loaded.processor.vocabulary, store)
        data, kind = self._data(args.data, loaded, store)
        held_out, held_kind = self._data(args.held_out, loaded, store) if args.held_out else (None, kind)
        if held_kind != kind:
            raise DataError(f"{args.held_out} asks for {held_kind} and {args.data} for {kind}; a run has one grammar")
        print(f"{len(data)} rows of {args.data}" + (f", {len(held_out)} held out" if held_out is not None else ""))
        if args.dry_run:
            return
        checkpoint = run.begin(self.output, self.ranks, args.overwrite_output, args.resume_from_checkpoint)
        run.require_same_contract(checkpoint, loaded.processor.vocabulary)
        require_same_tuning(checkpoint, self._lora(loaded.processor), args.model)
        require_same_spread(checkpoint, self.training, draws=True)
        with main_process_first(self.ranks):
            (self.output / run.SEQUENCES).mkdir(exist_ok=True)
            digest = f"{args.method} {run.file_digest(args.data)}"
            run.require_same_data(self.output / run.SEQUENCES / "data.json", digest, checkpoint is not None)
        with writing(f"a file in {self.output}", self.output):
            self._train(self._trainer(loaded, data, held_out, kind), held_out, checkpoint, store)

    def _data(self, file: str, loaded: "LoadedCheckpoint", store: Any) -> tuple[Any, str | None]:
        """Rows of a file, and for GRPO what kind of turn they ask for."""
        if self.args.method == DPO:
            from alm.preference.pairs import read_pairs

            return read_pairs(file, loaded.processor, store, self.args.max_length), None
        from alm.preference.questions import read_questions

        return read_questions(file, loaded.processor, store, self.args.audio, self.args.max_length)

    def _trainer(self, loaded: "LoadedCheckpoint", data: Any, held_out: Any, kind: str | None) -> Any:
        from alm.preference.trainers import PairTrainer, QuestionTrainer
        from alm.training.lora import base_reference
        from alm.training.stopping import StopAtSignal
        from alm.training.training_log import JsonLinesLog

        config = self._lora(loaded.processor)
        loaded.model.name_or_path = base_reference(self.args.model)  # peft takes the adapter's base from here
        common = {
            "args": self.training,
            "train_dataset": data,
            "eval_dataset": held_out,
            "processor": loaded.processor,
            "peft_config": config,
            "callbacks": [JsonLinesLog(self.output), StopAtSignal()],
        }
        if kind is None:
            trainer: Any = PairTrainer(loaded.model, ref_model=self._reference(), **common)
        else:
            from alm.generation.tasks import require_room
            from alm.preference.judges import Judges, grammar_of, require_judged

            grammar = grammar_of(self.args, self.training, loaded.processor, kind)
            longest = max(max(rows["prompt_tokens"]) for rows in (data, held_out) if rows is not None)
            room = self.training.max_completion_length
            require_room(loaded.processor, longest, room, "--max_completion_length (answers) or --max_seconds (audio)")
            judges = Judges.of(self.args, loaded.processor, kind, grammar, str(self.training.device))
            require_judged(self.args.rewards, data, self.args.data)
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

    def _before(self, trainer: Any, checkpoint: str | None) -> Any:
        """What is held out, measured with the first weights; a run that goes on finds it written down."""
        from alm.data.tokens_files import write_atomic
        from alm.training.run import SEQUENCES

        record = self.output / SEQUENCES / "before.json"
        if checkpoint is None:
            measured = trainer.evaluate()
            if self.ranks.is_main_process:
                write_atomic(record, json.dumps(measured).encode())
        return json.loads(record.read_text(encoding="utf-8")) if record.is_file() else None

    def _train(self, trainer: Any, held_out: Any, checkpoint: str | None, store: Any) -> None:
        """Train what is left to train, save, and write the manifest last."""
        from alm.training import run
        from alm.training.sft import save_final

        finished = run.is_complete(checkpoint, self.training.max_steps)
        text = self.args.add_text_loss(trainer, trainer.processor, self.output / run.SEQUENCES, checkpoint is not None)
        before = self._before(trainer, checkpoint) if held_out is not None else None
        if finished:
            trainer._load_from_checkpoint(checkpoint)
            metrics: dict[str, Any] = {}
        else:
            metrics = trainer.train(resume_from_checkpoint=checkpoint).metrics
        after = trainer.evaluate() if held_out is not None else None
        save_final(trainer)
        if not self.ranks.is_main_process:
            return
        files = [self.args.data, *([self.args.held_out] if self.args.held_out else [])]
        parts = {
            "recipe": self.recipe,
            "vocabulary": trainer.processor.vocabulary.hash,
            "token_store": store and store.contract,
            "files": {name: run.file_digest(name) for name in files},
            "rewards": self.labels,
            "held_out": {"before": before, "after": after},
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
