"""What a run is going to do, in words."""

from dataclasses import dataclass
from typing import Any, Protocol

from alm.arguments import ConfigFileError
from alm.data.rows import PackedRows, Shares
from alm.training.data import DataReport
from alm.training.layout import Layout
from alm.training.memory import ParameterCount, estimate_memory
from alm.training.outline import Outline

ROOM = 0.9
"""Share of a GPU that a plan may fill; the rest is for the framework, communication and fragments."""


class Memory(Protocol):
    """Bytes on one device, and their parts in words."""

    @property
    def total(self) -> float:
        """The peak."""


@dataclass(frozen=True)
class Plan:
    """The words, and the memory of one device."""

    text: str
    memory: Memory

    def require_fit(self, gpu_memory: float | None) -> None:
        """Raise `ConfigFileError` where the memory is more than `ROOM` of a GPU of so many GiB (None: any)."""
        needed = self.memory.total / 2**30
        if gpu_memory is not None and needed > ROOM * gpu_memory:
            raise ConfigFileError(
                f"{needed:.1f} GiB do not fit a GPU of {gpu_memory:g}, of which a plan may fill {ROOM:.0%}: give more GPUs, a smaller "
                "--per_device_train_batch_size or shorter rows or crops, or another machine (recipes/configs/accelerate)"
            )


def plan(
    args: Any,
    training: Any,
    layout: Layout,
    shape: Outline,
    rows: PackedRows | None = None,
    report: DataReport | None = None,
) -> Plan:
    """Model, data, steps and memory of a run; `args` are `LanguageModelArguments`, `training` the trainer's. No `rows`: no data given."""
    parameters = ParameterCount.of(shape.model, args.quantize_base)
    row = training.per_device_train_batch_size * args.max_length
    made = report.sequences if report else None
    memory = estimate_memory(
        shape.model.config,
        parameters,
        row,
        labelled=round(row * made.labelled / max(made.tokens, 1)) if made else row,
        layout=layout,
        gradient_checkpointing=training.gradient_checkpointing,
    )
    lines = [
        *model_lines(args, shape, parameters),
        *(
            _data(args, rows, report)
            if rows and report
            else ["tokens         unknown, no data given; all are taken as labelled"]
        ),
        *_steps(args, training, layout, rows),
        precision_line(args, training, layout),
        f"memory         about {memory} per device",
    ]
    return Plan("\n".join([*lines, *gpu_line(memory, args.gpu_memory)]), memory)


def model_lines(args: Any, shape: Outline, parameters: ParameterCount) -> list[str]:
    """What the model is, and what of it is trained."""
    assumed = f", {shape.assumed:,} audio tokens counted that it has not yet" if shape.assumed else ""
    return [
        f"model          {args.model}, {parameters.total:,} parameters, {shape.model.config.vocab_size:,} rows{assumed}",
        f"trained        {parameters.trained:,} parameters: {_tuning(args)}",
    ]


def precision_line(args: Any, training: Any, layout: Layout) -> str:
    """What computes in which type, and where."""
    return f"precision      {_precision(args, training, layout)} on {layout}"


def batch_words(training: Any, layout: Layout, what: str) -> tuple[int, str]:
    """How many rows, pairs or turns a step has over all devices, and how they come about."""
    parts = (training.per_device_train_batch_size, training.gradient_accumulation_steps, layout.processes)
    words = f"({parts[0]} {what} a device × {parts[1]} accumulated × {parts[2]})"
    return parts[0] * parts[1] * parts[2], words


def time_line(tokens: float, tokens_per_second: float | None) -> list[str]:
    """How long `tokens` take at a throughput; nothing where it is not told."""
    if not tokens_per_second:
        return []
    days = tokens / tokens_per_second / 86_400
    return [f"time           {days:.1f} days for {tokens:,.0f} tokens at {tokens_per_second:,.0f} a second"]


def gpu_line(memory: Memory, gpu_memory: float | None, indent: int = 15) -> list[str]:
    """How full a GPU of so many GiB would be; nothing where it is not told."""
    if gpu_memory is None:
        return []
    filled = memory.total / 2**30 / gpu_memory
    return [
        f"{'GPU':{indent}}{filled:.0%} of {gpu_memory:g} GiB, at most {ROOM:.0%}: {'fits' if filled <= ROOM else 'too much'}"
    ]


def _tuning(args: Any) -> str:
    if not args.lora_rank:
        return "full fine-tuning"
    quantized = getattr(args, "quantize_base", False)
    return f"LoRA of rank {args.lora_rank} and the new rows{', on a base in 4 bits' if quantized else ''}"


def _precision(args: Any, training: Any, layout: Layout) -> str:
    """What computes, and in what the trained weights are kept."""
    if not layout.half_precision:
        return "float32"
    kind = "float16" if training.fp16 else "bfloat16"
    if layout.deepspeed:
        return f"{kind}, float32 masters of what is trained,"
    return f"{kind}, {'what is trained' if args.lora_rank else 'weights'} in float32,"


def _data(args: Any, rows: PackedRows, report: DataReport) -> list[str]:
    """What was read and what became of it."""
    made, lines = report.sequences, []
    for one in report.read:
        lost = ", ".join(f"{count:,} {reason}" for reason, count in one.dropped.items()) or "none"
        lines.append(f"{one.source:<14} {one.rows:,} rows, {one.examples:,} examples; dropped: {lost}")
    gone = f"{made.too_long.total():,} too long, {made.without_tokens.total():,} without tokens"
    gone += f", {made.cropped.total():,} cropped" if made.cropped else ""
    full = made.tokens / max(rows.epoch_rows * args.max_length, 1)
    return [
        *lines,
        f"sequences      {made.sequences.total():,} of {made.examples.total():,} examples; {gone}",
        f"tokens         {made.tokens:,}, {made.labelled:,} labelled; longest sequence {made.longest:,} of {args.max_length:,}",
        f"packed         {rows.epoch_rows:,} rows, {full:.0%} full",
        *_mixture(rows),
    ]


def _steps(args: Any, training: Any, layout: Layout, rows: PackedRows | None) -> list[str]:
    """Steps, their size, and the days that they take."""
    batch, words = batch_words(training, layout, "rows")
    size = f"{batch} rows × {args.max_length:,} tokens {words}"
    if training.max_steps <= 0:  # epochs of data that were not given
        return [f"training       {training.num_train_epochs:g} passes, steps of {size}"]
    passes = f", about {rows.count / max(rows.epoch_rows, 1):.1f} passes" if rows else ""
    tokens = training.max_steps * batch * args.max_length
    line = f"training       {training.max_steps:,} steps of {size}{passes}"
    return [line, *time_line(tokens, args.tokens_per_second)]


def _mixture(rows: PackedRows) -> list[str]:
    """A line per source where there are several."""
    shares = Shares.of(rows)
    if len(shares.names) == 1:
        return []
    return [
        f"mixture        {share:6.1%} {name}: {count:,} rows, {tokens:,} tokens"
        for name, count, tokens, share in zip(shares.names, shares.rows, shares.tokens, shares.shares, strict=True)
    ]
