"""What a run of preference training is going to do, in words, and what it takes in memory.

The step is held to measured peaks on a CPU, unsharded (`tests/alm/test_preference_plan.py`); what a GPU or sharding changes is arithmetic.
"""

import math
from typing import TYPE_CHECKING, Any, NamedTuple

from alm.data.example import DataError
from alm.preference.arguments import DPO, PreferenceArguments
from alm.training.layout import Layout
from alm.training.memory import MemoryEstimate, ParameterCount, estimate_memory
from alm.training.outline import Outline
from alm.training.plan import Plan, batch_words, gpu_line, model_lines, precision_line, time_line

if TYPE_CHECKING:
    from transformers import PretrainedConfig


class Rows(NamedTuple):
    """What a plan needs to know of the data, in tokens."""

    number: int
    prompt: int
    answer: int
    """The longest, and so is the longest prompt; they need not be of one row."""
    longest: int
    """Prompt and answer of one row."""
    mean: float
    """Tokens of a pair's two conversations, or of a question."""
    held_out: int = 0

    @classmethod
    def of(cls, data: Any, held_out: int = 0) -> "Rows":
        """Of pairs (`alm.preference.pairs`) or questions (`alm.preference.questions`)."""
        if "prompt_tokens" in data.column_names:
            lengths = data["prompt_tokens"]
            return cls(len(data), max(lengths), 0, max(lengths), sum(lengths) / len(data), held_out)
        pairs = [[len(row[name]) for name in ("prompt_ids", "chosen_ids", "rejected_ids")] for row in data]
        return cls(
            len(data),
            prompt=max(prompt for prompt, *_ in pairs),
            answer=max(max(answers) for _, *answers in pairs),
            longest=max(prompt + max(answers) for prompt, *answers in pairs),
            mean=sum(2 * prompt + sum(answers) for prompt, *answers in pairs) / len(data),
            held_out=held_out,
        )


class PreferenceMemory(NamedTuple):
    """Bytes on one device: a training step, the reference beside it, and what turns take that are drawn before it (DPO: nothing)."""

    step: MemoryEstimate
    reference: float = 0.0
    turns: float = 0.0

    @property
    def total(self) -> float:
        """The peak: turns are drawn when no gradient and no activation is there."""
        drawing = self.step.weights + self.step.optimizer + self.turns
        return self.reference + max(self.step.total, drawing)

    def __str__(self) -> str:
        beside = f", reference {self.reference / 2**30:.2f}" if self.reference else ""
        turns = f"; while turns are drawn {self.turns / 2**30:.2f} in place of all but weights and optimizer"
        step = str(self.step).partition(" GiB (")[2].rstrip(")")
        return f"{self.total / 2**30:.2f} GiB ({step}{beside}{turns if self.turns else ''})"


def settle_turns(training: Any, accumulated: int, layout: Layout) -> None:
    """Let the turns that GRPO draws at once follow the accumulation and processes that a run has, or will have elsewhere.

    `accumulated` is what the accumulation was when the trainer's configuration was made, which counted this launch's processes, and made
    sure that they come to whole groups on these; then they do so on more.
    """
    if training.steps_per_generation == accumulated:
        training.steps_per_generation = training.gradient_accumulation_steps
    training.generation_batch_size = (
        training.per_device_train_batch_size * layout.processes * training.steps_per_generation
    )


def require_questions(number: int, training: Any, file: str) -> None:
    """Raise `DataError` where there are fewer questions than are asked at once: TRL would leave them all out, and train on nothing."""
    at_once = training.generation_batch_size // training.num_generations
    if number < at_once:
        raise DataError(
            f"{file} has {number} questions, and {at_once} are asked at once ({training.generation_batch_size} turns, groups of "
            f"--num_generations {training.num_generations}): give more, or a smaller --per_device_train_batch_size, "
            "--gradient_accumulation_steps or --steps_per_generation"
        )


def plan(args: PreferenceArguments, training: Any, layout: Layout, shape: Outline, rows: Rows | None) -> Plan:
    """Model, data, steps and memory of a run; no `rows`: no data given, the longest that may be are taken."""
    parameters = ParameterCount.of(shape.model)
    memory = preference_memory(args, training, layout, shape, parameters, rows)
    lines = [
        *model_lines(args, shape, parameters),
        f"reference      {_reference(args, training)}",
        *_rows(args, training, rows),
        *_steps(args, training, layout, rows),
        precision_line(args, training, layout),
        f"memory         about {memory} per device",
    ]
    return Plan("\n".join([*lines, *gpu_line(memory, args.gpu_memory)]), memory)


def preference_memory(
    args: PreferenceArguments,
    training: Any,
    layout: Layout,
    shape: Outline,
    parameters: ParameterCount,
    rows: Rows | None,
) -> PreferenceMemory:
    """Memory of a step on one device. TRL scores the answers alone on a GPU, and every position elsewhere."""
    batch, config = training.per_device_train_batch_size, shape.model.config
    reference = _reference_bytes(parameters, layout) if _has_reference(args, training) else 0.0
    if args.method == DPO:
        length = rows.longest if rows else args.max_length
        answer = rows.answer if rows else length
        sequences, turns = 2 * batch, 0.0
    else:
        answer = training.max_completion_length
        length = (rows.prompt if rows else args.max_length) + answer
        sequences = batch
        at_once = batch * training.steps_per_generation
        turns = turns_bytes(config, parameters, at_once, length, length - answer, layout)
    checkpointing = training.gradient_checkpointing
    scored = sequences * (answer if layout.gpu else length)
    step = estimate_memory(config, parameters, sequences * length, scored, layout, checkpointing, padded=length)
    return PreferenceMemory(step, reference, turns)


def _has_reference(args: PreferenceArguments, training: Any) -> bool:
    """Whether a second model is held: with LoRA the first without its adapter is the reference; GRPO has none where nothing asks for it."""
    return not args.lora_rank and (args.method == DPO or training.beta > 0)


def _reference_bytes(parameters: ParameterCount, layout: Layout) -> float:
    """DeepSpeed casts it; stage 3 and FSDP shard it, and gather it layer by layer."""
    held = 2 if layout.deepspeed and layout.half_precision else 4
    return held * parameters.total / (1 if layout.whole_weights else layout.processes)


def turns_bytes(
    config: "PretrainedConfig", parameters: ParameterCount, turns: int, length: int, prompt: int, layout: Layout
) -> float:
    """Of turns drawn at once, keys and values and what is worked on beside them: a layer over the prompts, or the last id."""
    held = 2 if layout.half_precision else 4
    # DeepSpeed computes in what its weights are; elsewhere a norm under autocast leaves keys in float32
    pair = 2 * held if layout.deepspeed or not layout.half_precision else 4 + held
    layers, cached = config.num_hidden_layers, turns * config.num_key_value_heads * config.head_dim * pair
    reading = cached * layers * prompt + turns * prompt * held * (3 * config.intermediate_size + 4 * config.hidden_size)
    # a layer's keys and values are copied beside the scores of the id before; an id is drawn from four float32 copies of its scores
    drawing = cached * layers * length + max(
        cached * length + 8 * turns * config.vocab_size, 16 * turns * config.vocab_size
    )
    gathered = held * parameters.total if layout.sharding == "zero3" else 0
    return float(max(reading, drawing) + gathered)


def _reference(args: PreferenceArguments, training: Any) -> str:
    if args.method != DPO and training.beta == 0:
        return "none (--beta 0)"
    return "a frozen copy of the model" if _has_reference(args, training) else "the model without its adapter"


def _rows(args: PreferenceArguments, training: Any, rows: Rows | None) -> list[str]:
    if rows is None:
        return [f"rows           unknown, no data given; all are taken to have {args.max_length:,} tokens"]
    held_out = f" ({rows.held_out:,} held out)" if rows.held_out else ""
    if args.method == DPO:
        longest = f"longest prompt and answer {rows.longest:,} of {args.max_length:,} tokens"
        return [f"rows           {rows.number:,} pairs of {args.data}{held_out}; {longest}"]
    longest = f"longest prompt {rows.prompt:,} of {args.max_length:,} tokens"
    return [
        f"rows           {rows.number:,} questions of {args.data}; {longest}, turns of up to {training.max_completion_length:,}"
    ]


def _steps(args: PreferenceArguments, training: Any, layout: Layout, rows: Rows | None) -> list[str]:
    """Steps, their size, and the days that they take."""
    pairs = args.method == DPO
    batch, words = batch_words(training, layout, "pairs" if pairs else "turns")
    group = 1 if pairs else training.num_generations
    size = f"{batch} pairs {words}" if pairs else f"{batch / group:g} questions × {group} turns {words}"
    steps = training.max_steps
    if steps <= 0 and rows is None:
        return [f"training       {training.num_train_epochs:g} passes, steps of {size}"]
    if steps <= 0 and rows is not None:
        steps = math.ceil(training.num_train_epochs * math.ceil(rows.number * group / batch))
    passes = f", about {steps * batch / group / rows.number:.1f} passes" if rows else ""
    one = 2.0 * args.max_length if pairs else args.max_length
    mean = rows.mean if rows else one
    tokens = steps * batch * (mean if pairs else mean + training.max_completion_length)
    return [f"training       {steps:,} steps of {size}{passes}", *time_line(tokens, args.tokens_per_second)]
