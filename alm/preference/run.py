"""One run of preference training: data, reference, rewards, trainer, and the life of its output folder."""

import json
import shutil
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alm.arguments import ConfigFileError

if TYPE_CHECKING:
    from alm.checkpoint import LoadedCheckpoint
    from alm.generation.grammar import AudioGrammar

DPO, GRPO = "dpo", "grpo"
REWARDS = ("choice", "validity", "wer", "clap")
DEFAULTS: dict[str, Any] = {"save_steps": 500, "save_total_limit": 2, "report_to": "none"}


@dataclass
class PreferenceArguments:
    """Flags of recipes/preference.py beside those of TRL's DPOConfig or GRPOConfig."""

    method: str = field(metadata={"help": "dpo (pairs) or grpo (rewards)", "choices": [DPO, GRPO]})
    model: str = field(metadata={"help": "checkpoint with an audio vocabulary: folder or Hub id; also DPO's reference"})
    data: str = field(metadata={"help": "JSON lines of pairs (dpo) or questions (grpo)"})
    output_dir: str = field(metadata={"help": "folder of the trained model, its checkpoints and its log"})
    tokens: str | None = field(default=None, metadata={"help": "token store of recipes/tokenize_corpus.py"})
    held_out: str | None = field(
        default=None, metadata={"help": "file like --data, measured before and after training"}
    )
    audio: str | None = field(default=None, metadata={"help": "folder of the clips that MMAR's rows name"})
    max_length: int = field(
        default=2048, metadata={"help": "most tokens of prompt and answer (grpo: of the prompt); nothing is cut"}
    )
    rewards: list[str] = field(
        default_factory=list,
        metadata={"help": f"grpo: {', '.join(REWARDS)}; TRL's --reward_weights go with them"},
    )
    asr: str = field(
        default="openai/whisper-large-v3", metadata={"help": "recogniser of the reward wer: folder or Hub id"}
    )
    clap: str = field(
        default="laion/clap-htsat-unfused", metadata={"help": "CLAP of the reward clap: folder or Hub id"}
    )
    grammar: bool = field(default=True, metadata={"help": "grpo: draw only what the grammar allows"})
    min_seconds: float = field(default=0.2, metadata={"help": "grpo: least length of generated audio"})
    max_seconds: float = field(default=30.0, metadata={"help": "grpo: most length of generated audio"})
    lora_rank: int = field(default=0, metadata={"help": "rank of LoRA; 0: full fine-tuning"})
    lora_alpha: int | None = field(default=None, metadata={"help": "LoRA's alpha; twice the rank unless given"})
    seed: int = field(default=42, metadata={"help": "seed of the order of data and of what is drawn"})
    resume_from_checkpoint: str = field(
        default="auto", metadata={"help": "auto (the last checkpoint of OUTPUT_DIR if there is one), true, or a folder"}
    )
    overwrite_output: bool = field(default=False, metadata={"help": "start afresh where OUTPUT_DIR holds a run"})
    dry_run: bool = field(default=False, metadata={"help": "read the data, print what there is, and exit"})

    def __post_init__(self) -> None:
        if unknown := sorted(set(self.rewards) - set(REWARDS)):
            raise ValueError(f"--rewards {' '.join(unknown)}: accepted are {', '.join(REWARDS)}")
        if (self.method == GRPO) != bool(self.rewards):
            raise ValueError("--rewards go with --method grpo, which needs one or more")


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

        args = self.args
        store = TokenStore.open(args.tokens) if args.tokens else None
        # frozen weights stay as they are stored where bfloat16 computes anyway; trained ones are float32
        dtype = None if args.lora_rank and self.training.bf16 else torch.float32
        loaded = load_checkpoint(args.model, dtype=dtype, check_codec=False)
        if store is not None:
            require_store(loaded.processor.vocabulary, store)
        data, kind = self._data(args.data, loaded, store)
        held_out = self._data(args.held_out, loaded, store)[0] if args.held_out else None
        print(f"{len(data)} rows of {args.data}" + (f", {len(held_out)} held out" if held_out is not None else ""))
        if args.dry_run:
            return
        checkpoint = run.begin(self.output, self.ranks, args.overwrite_output, args.resume_from_checkpoint)
        run.require_same_contract(checkpoint, loaded.processor.vocabulary)
        with self.ranks.main_process_first():
            (self.output / run.SEQUENCES).mkdir(exist_ok=True)
            digest = f"{args.method} {run.file_digest(args.data)}"
            run.require_same_data(self.output / run.SEQUENCES / "data.json", digest, checkpoint is not None)
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
        from alm.training.sft import JsonLinesLog

        config = self._lora(loaded.processor)
        loaded.model.name_or_path = base_reference(self.args.model)  # peft takes the adapter's base from here
        common = {
            "args": self.training,
            "train_dataset": data,
            "eval_dataset": held_out,
            "processor": loaded.processor,
            "peft_config": config,
            "callbacks": [JsonLinesLog(self.output)],
        }
        if kind is None:
            trainer: Any = PairTrainer(loaded.model, ref_model=self._reference(), **common)
        else:
            grammar = self._grammar(loaded.processor, kind)
            _require_room(loaded.processor, max(data["prompt_tokens"]), self.training.max_completion_length)
            rewards = self._rewards(loaded.processor, kind, grammar)
            under = grammar if self.args.grammar else None
            trainer = QuestionTrainer(loaded.model, reward_funcs=rewards, grammar=under, **common)
        if config is not None:
            # TRL's loss reads the head's weight and bias; peft's wrapper of trained rows (0.21) passes on the weight alone
            trainer.model.get_output_embeddings().bias = None
        return trainer

    def _lora(self, processor: Any) -> Any:
        from alm.adapters import lora_config

        return (
            lora_config(processor.vocabulary, self.args.lora_rank, self.args.lora_alpha)
            if self.args.lora_rank
            else None
        )

    def _reference(self) -> Any:
        """A frozen copy of the first model; with LoRA the model without its adapter is that, and none is kept."""
        import torch

        from alm.checkpoint import load_checkpoint

        if self.args.lora_rank:
            return None
        return load_checkpoint(self.args.model, dtype=torch.float32, check_codec=False).model.requires_grad_(False)

    def _grammar(self, processor: Any, kind: str) -> "AudioGrammar":
        """What a turn may be; for audio TRL's limit of new ids is set to what the longest span takes."""
        from alm.generation.grammar import AudioGrammar
        from alm.generation.tasks import span_grammar
        from alm.preference.questions import TEXT

        if kind == TEXT:
            return AudioGrammar(processor.vocabulary, text=True, max_spans=0)
        grammar = span_grammar(processor, self.args.min_seconds, self.args.max_seconds)
        self.training.max_completion_length = grammar.max_span_ids + 1
        return grammar

    def _rewards(self, processor: Any, kind: str, grammar: "AudioGrammar") -> list[Any]:
        """The rewards named; raises where they do not fit the data, or what they need is not there."""
        from alm.preference import rewards
        from alm.preference.questions import TEXT

        names = self.args.rewards
        if wrong := [name for name in names if name in (("wer", "clap") if kind == TEXT else ("choice",))]:
            raise ConfigFileError(f"--rewards {' '.join(wrong)} judge other turns than the {kind} that --data asks for")
        if {"wer", "clap"} & set(names):
            _require_waveforms(processor)
        make = {
            "choice": lambda: rewards.choice_accuracy,
            "validity": lambda: rewards.Validity(grammar, processor),
            "wer": lambda: self._word_reward(processor),
            "clap": lambda: self._clap_reward(processor),
        }
        return [make[name]() for name in names]

    def _word_reward(self, processor: Any) -> Any:
        from alm.preference.rewards import SpokenWords
        from alm.scoring.speech.recognition import SAMPLING_RATE, find_recogniser, load_recogniser
        from alm.scoring.speech.words import word_counter

        hear = load_recogniser(find_recogniser(self.args.asr), str(self.training.device))
        self.labels["wer"] = f"{hear.label}, Whisper's English normaliser"
        return SpokenWords(processor, hear, word_counter(), SAMPLING_RATE)

    def _clap_reward(self, processor: Any) -> Any:
        from alm.preference.clap import find_clap, load_clap
        from alm.preference.rewards import CaptionSimilarity

        found = find_clap(self.args.clap)
        self.labels["clap"] = found.label
        return CaptionSimilarity(processor, *load_clap(found, str(self.training.device)))

    def _before(self, trainer: Any, checkpoint: str | None) -> Any:
        """What is held out, measured with the first weights; a run that goes on finds it written down."""
        from alm.training.run import SEQUENCES

        record = self.output / SEQUENCES / "before.json"
        if checkpoint is None:
            measured = trainer.evaluate()
            if self.ranks.is_main_process:
                record.write_text(json.dumps(measured), encoding="utf-8")
        return json.loads(record.read_text(encoding="utf-8")) if record.is_file() else None

    def _train(self, trainer: Any, held_out: Any, checkpoint: str | None, store: Any) -> None:
        """Train what is left to train, save, and write the manifest last."""
        from alm.training import run
        from alm.training.sft import save_final

        finished = run.is_complete(checkpoint, self.training.max_steps)
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
        }
        run.write_manifest(self.output, parts, sys.argv)
        shutil.rmtree(self.output / run.SEQUENCES)
        print(f"saved to {self.output}")


def _require_room(processor: Any, longest: int, room: int) -> None:
    if processor.max_length is not None and longest + room > processor.max_length:
        raise ConfigFileError(
            f"a prompt of {longest} tokens and {room} to be generated are more than the {processor.max_length} that the model takes; lower "
            "--max_completion_length (answers) or --max_seconds (audio), or drop the longest prompts"
        )


def _require_waveforms(processor: Any) -> None:
    """Decode one frame now, rather than fail at the first turn that is judged."""
    vocabulary = processor.vocabulary
    frame = [vocabulary.first_id + book * vocabulary.codebook_size for book in range(vocabulary.num_codebooks)]
    try:
        processor.decode_audio(frame)
    except ValueError as error:
        raise ConfigFileError(
            f"--rewards wer and clap listen to waveforms, and the codec makes none: {error}"
        ) from error
