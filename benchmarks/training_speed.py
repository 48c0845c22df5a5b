"""One step of fine-tuning: our packed rows and labelled logits against padded batches and full logits in Transformers' own Trainer.

    OMP_NUM_THREADS=1 python benchmarks/training_speed.py [--shape small] [--task understanding] [--gradient_checkpointing true]

The peer pads each batch to its longest conversation and lets `Qwen3ForCausalLM` compute its loss from the labels, as LLaSA's and
slamkit's training scripts do. Both take the same conversations (clips of 10 to 30 s, short questions and answers; or sentences to
speak) in one optimizer step, with the same random weights, optimizer and precision; a micro-batch holds about as many real tokens.
Each way runs in a process of its own, in turn: the first step warms up, and its losses are held equal. Prints real tokens (no padding)
per CPU second, peak memory of the process, and the ratios of the pairs with their spread (above 1: ours is
quicker; memory below 1: ours is smaller). Targets at 0.6B: 2 and 0.5. The process's memory holds libraries, kernels and the heap, too;
`--in_shapes true` counts the tensors of a step alone, as on any device that computes them so.
"""

import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from alm.arguments import parse_arguments, read_numbers, run_main

ROOT = Path(__file__).parents[1]
PUBLISHED = ("0.6B", "1.7B", "4B", "8B")


@dataclass
class BenchmarkArguments:
    shape: str = field(default="small", metadata={"help": "size of the model", "choices": ["small", *PUBLISHED]})
    layers: int | None = field(default=None, metadata={"help": "layers of it, where all of them are too slow"})
    rows: int | None = field(
        default=None, metadata={"help": "rows of the vocabulary; else 168,064, and 10,240 of small"}
    )
    task: str = field(
        default="understanding",
        metadata={"help": "what is labelled: a short answer, or the audio", "choices": ["understanding", "speech"]},
    )
    clip_seconds: list[float] = field(
        default_factory=lambda: [10.0, 30.0], metadata={"help": "shortest and longest clip"}
    )
    conversations: int = field(default=16, metadata={"help": "conversations of one optimizer step"})
    batch: int = field(default=4, metadata={"help": "conversations of the peer's micro-batch"})
    max_length: int | None = field(
        default=None, metadata={"help": "tokens of our packed row; else as many as a batch of the peer has on average"}
    )
    gradient_checkpointing: bool = field(default=False, metadata={"help": "both ways"})
    optim: str = field(default="adamw_torch", metadata={"help": "both ways; sgd has no state"})
    bf16: bool = field(default=True, metadata={"help": "compute in bfloat16, both ways"})
    steps: int = field(default=2, metadata={"help": "steps of a process; the first is counted where it is alone"})
    repeats: int = field(default=3, metadata={"help": "pairs of processes"})
    in_shapes: bool = field(
        default=False,
        metadata={"help": "only the tensors of a step with AdamW, gone through in shapes: any size, no weights"},
    )
    way: str | None = field(default=None, metadata={"help": "run one way here and print it as JSON (used inside)"})


def main(argv: list[str] | None = None) -> None:
    args = parse_arguments(BenchmarkArguments, argv, description=__doc__)
    if args.way:
        print(json.dumps(WAYS[args.way](args)))
        return
    lengths = [len(one["input_ids"]) for one in conversations(args, 1000)]
    print(
        f"{args.shape}, {args.layers or 'all'} layers, {args.task}, {'bfloat16' if args.bf16 else 'float32'}, {args.optim}, "
        f"gradient checkpointing {'on' if args.gradient_checkpointing else 'off'}: {args.conversations} conversations of "
        f"{min(lengths)} to {max(lengths)} tokens, {sum(lengths):,} in all"
    )
    if args.in_shapes:
        report_in_shapes(args)
        return
    pairs = []
    for _ in range(args.repeats):
        pairs.append({way: run_apart(args, way) for way in WAYS})
        ours, peer = (pairs[-1][way]["losses"][0] for way in ("ours", "trainer"))
        if abs(ours - peer) > 2e-3 * abs(peer):
            raise AssertionError(f"the losses of the first step differ: {ours}, {peer}")
    tokens = sum(lengths)
    for way, name in (("trainer", "Trainer, padded, full logits"), ("ours", "ours")):
        speed = [tokens / seconds for pair in pairs for seconds in pair[way]["seconds"]]
        memory = [pair[way]["peak"] for pair in pairs]
        print(
            f"{name:<30} {statistics.median(speed):8,.0f} tokens a CPU second [{min(speed):,.0f}, {max(speed):,.0f}], "
            f"peak {statistics.median(memory):.2f} GiB, of which {pairs[0][way]['before']:.2f} before training; "
            f"{pairs[0][way]['computed']:,} tokens computed"
        )
    report(pairs, "speed", lambda pair, way: 1 / statistics.median(pair[way]["seconds"]), target=">= 2")
    report(pairs, "peak memory", lambda pair, way: pair[way]["peak"], target="<= 0.5")
    print(f"loss of the first step: ours {ours:.4f}, Trainer {peer:.4f}")


def report(pairs: list[dict[str, Any]], name: str, value: Any, target: str) -> None:
    """One ratio, ours over the peer's, pair by pair."""
    ratios = sorted(value(pair, "ours") / value(pair, "trainer") for pair in pairs)
    print(
        f"{name:<12} ours / Trainer: {statistics.median(ratios):.2f} [{ratios[0]:.2f}, {ratios[-1]:.2f}] (target at 0.6B {target})"
    )


def run_apart(args: BenchmarkArguments, way: str) -> dict[str, Any]:
    """One way in a process of its own, so that its peak memory is its own."""
    told = {**asdict(args), "way": way}
    flags = [f"--{name}={value}" for name, value in told.items() if value is not None and not isinstance(value, list)]
    flags += ["--clip_seconds", *map(str, args.clip_seconds)]
    made = subprocess.run([sys.executable, __file__, *flags], capture_output=True, text=True)
    if made.returncode:
        raise RuntimeError(f"{way} failed ({made.returncode}):\n{made.stderr[-2000:]}")
    result: dict[str, Any] = json.loads(made.stdout.splitlines()[-1])
    return result


def conversations(args: BenchmarkArguments, vocabulary: int) -> list[dict[str, list[int]]]:
    """Random ids of plausible lengths: 50 audio tokens a second, a question of 10 to 60 tokens, an answer of 3 to 40."""
    import numpy as np

    draw = np.random.default_rng(0)
    made = []
    for _ in range(args.conversations):
        shortest, longest = (round(50 * seconds) for seconds in args.clip_seconds)
        audio, question, answer = draw.integers(shortest, longest + 1), draw.integers(10, 61), draw.integers(3, 41)
        prompt, labelled = (question, audio) if args.task == "speech" else (audio + question, answer)
        ids = draw.integers(10, vocabulary, prompt + labelled).tolist()
        made.append({"input_ids": ids, "labels": [-100] * int(prompt) + ids[prompt:]})
    return made


def report_in_shapes(args: BenchmarkArguments) -> None:
    """Peaks of a step of one micro-batch of the peer's and of our packed row of as many tokens."""
    import torch
    from torch.nn import functional as F

    from alm.training.attention import use_attention_by_document
    from codec.live_tensors import StepBytes, in_shapes, step_bytes

    batch = conversations(args, 1000)[: args.batch]
    lengths = [len(one["input_ids"]) for one in batch]
    labelled = sum(label >= 0 for one in batch for label in one["labels"])
    found: dict[str, StepBytes] = {}
    for way in WAYS:
        with in_shapes():
            model = random_model(args).train()
            shape = (1, sum(lengths)) if way == "ours" else (len(batch), max(lengths))
            ids, mask = torch.zeros(shape, dtype=torch.long), torch.ones(shape, dtype=torch.long)
        if args.gradient_checkpointing:
            model.gradient_checkpointing_enable()
        bounds = torch.tensor([0, *lengths]).cumsum(0).int()
        documents = {"cu_seq_lens_q": bounds, "cu_seq_lens_k": bounds}
        documents |= dict.fromkeys(("max_length_q", "max_length_k"), max(lengths))
        positions = torch.cat([torch.arange(length) for length in lengths])[None]
        kept = torch.arange(labelled)

        def padded(model: Any = model, ids: Any = ids, mask: Any = mask) -> Any:
            return model(input_ids=ids, attention_mask=mask, labels=ids).loss

        def packed(
            model: Any = model, ids: Any = ids, more: Any = documents, at: Any = positions, keep: Any = kept
        ) -> Any:
            logits = model(input_ids=ids, position_ids=at, use_cache=False, logits_to_keep=keep, **more).logits[0]
            return F.cross_entropy(logits.float(), torch.zeros(len(keep), dtype=torch.long))

        if way == "ours":
            use_attention_by_document(model)
        found[way] = step_bytes(model, packed if way == "ours" else padded, args.bf16)
        print(f"{way:<8} {found[way]}")
    print(f"tensors      ours / Trainer: {found['ours'].total / found['trainer'].total:.2f} (target at 0.6B <= 0.5)")


def random_model(args: BenchmarkArguments) -> Any:
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    if args.shape == "small":
        shape = read_numbers(ROOT / "recipes/configs/small/language_model.yaml")
        rows = 10_240
    else:
        shape = {"head_dim": 128, "num_key_value_heads": 8, **read_numbers(ROOT / "benchmarks/qwen3.yaml")[args.shape]}
        shape.pop("stored")
        rows = 168_064
    shape["vocab_size"] = args.rows or rows
    shape["num_hidden_layers"] = args.layers or shape["num_hidden_layers"]
    torch.manual_seed(0)
    return Qwen3ForCausalLM(Qwen3Config(**shape, pad_token_id=0, bos_token_id=None, eos_token_id=1))


def shared_flags(args: BenchmarkArguments, folder: str) -> dict[str, Any]:
    return {
        "output_dir": folder,
        "num_train_epochs": args.steps,
        "gradient_checkpointing": args.gradient_checkpointing,
        "optim": args.optim,
        "bf16": args.bf16,
        "learning_rate": 1e-4,
        "lr_scheduler_type": "constant",
        "use_cpu": True,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "seed": 0,
    }


def padded_trainer(args: BenchmarkArguments) -> dict[str, Any]:
    import torch
    from transformers import Trainer, TrainingArguments

    data = conversations(args, 1000)

    def pad(batch: list[dict[str, list[int]]]) -> dict[str, Any]:
        longest = max(len(one["input_ids"]) for one in batch)
        columns = (("input_ids", 0), ("labels", -100))
        padded = {
            name: torch.tensor([one[name] + [filler] * (longest - len(one[name])) for one in batch])
            for name, filler in columns
        }
        mask = torch.tensor([[1] * len(one["input_ids"]) + [0] * (longest - len(one["input_ids"])) for one in batch])
        return {**padded, "attention_mask": mask}

    with tempfile.TemporaryDirectory() as folder:
        flags = TrainingArguments(
            **shared_flags(args, folder),
            per_device_train_batch_size=args.batch,
            gradient_accumulation_steps=-(-args.conversations // args.batch),
        )
        model: Any = random_model(args)
        trainer = Trainer(model=model, args=flags, train_dataset=data, data_collator=pad)  # type: ignore[arg-type]
        return timed(trainer)


def our_trainer(args: BenchmarkArguments) -> dict[str, Any]:
    from itertools import chain
    from types import SimpleNamespace

    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    from alm.data.packing import pack
    from alm.training.sft import SequenceConfig, build_trainer

    data = conversations(args, 1000)
    lengths = [len(one["input_ids"]) for one in data]
    row = args.max_length or max(*lengths, round(sum(lengths) / len(lengths) * args.batch))
    packed = [[data[number] for number in numbers] for numbers in pack(lengths, row)]
    rows: Any = [
        {
            "input_ids": list(chain.from_iterable(one["input_ids"] for one in row)),
            "labels": list(chain.from_iterable(one["labels"] for one in row)),
            "seq_lengths": [len(one["input_ids"]) for one in row],
        }
        for row in packed
    ]
    words = Tokenizer(models.WordLevel({"<pad>": 0, "<eos>": 1, "<unk>": 2}, unk_token="<unk>"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="<eos>")
    with tempfile.TemporaryDirectory() as folder:
        flags = SequenceConfig(
            **shared_flags(args, folder),
            packing=True,
            max_length=row,
            per_device_train_batch_size=1,
            gradient_accumulation_steps=len(rows),
        )
        processor: Any = SimpleNamespace(tokenizer=tokenizer)
        return timed(build_trainer(random_model(args), processor, rows, flags))


def timed(trainer: Any) -> dict[str, Any]:
    """CPU seconds of each step but the first, the losses of all, and the peak of the process' memory in GiB."""
    from transformers import TrainerCallback

    starts: list[float] = []
    computed: list[int] = []

    class Clock(TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            starts.append(time.process_time())

        def on_step_end(self, *_: Any, **__: Any) -> None:
            starts[-1] = time.process_time() - starts[-1]

    collate = trainer.data_collator

    def counted(batch: Any) -> Any:
        made = collate(batch)
        computed.append(made["input_ids"].numel())
        return made

    trainer.data_collator = counted
    trainer.add_callback(Clock())
    before = peak_gib()
    trainer.train()
    return {
        "seconds": starts[1:] or starts,
        "losses": [one["loss"] for one in trainer.state.log_history if "loss" in one],
        "peak": peak_gib(),
        "before": before,
        "computed": sum(computed) // len(starts),
    }


def peak_gib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


WAYS = {"trainer": padded_trainer, "ours": our_trainer}

if __name__ == "__main__":
    run_main(main)
