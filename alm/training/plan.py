"""What a run is going to do, in words."""

from typing import Any

from alm.data.rows import PackedRows, Shares
from alm.training.data import DataReport
from alm.training.held_out_text import HeldOutText
from alm.training.memory import ParameterCount, estimate_memory


def plan(
    args: Any, training: Any, model: Any, rows: PackedRows, report: DataReport, text: HeldOutText | None = None
) -> str:
    """Model, data, steps and memory of a run; `args` are `LanguageModelArguments`, `training` the trainer's, `text` is held out."""
    parameters, made = ParameterCount.of(model), report.sequences
    rows_per_step = training.per_device_train_batch_size * training.gradient_accumulation_steps * training.world_size
    row = training.per_device_train_batch_size * args.max_length
    memory = estimate_memory(
        model.config,
        parameters,
        row,
        labelled=round(row * made.labelled / max(made.tokens, 1)),
        half_precision=bool(training.bf16 or training.fp16),
        gradient_checkpointing=training.gradient_checkpointing,
    )
    tuning = f"LoRA of rank {args.lora_rank} and the new rows" if args.lora_rank else "full fine-tuning"
    lines = [
        f"model          {args.model}, {parameters.total:,} parameters, {model.config.vocab_size:,} rows",
        f"trained        {parameters.trained:,} parameters: {tuning}",
    ]
    for one in report.read:
        lost = ", ".join(f"{count:,} {reason}" for reason, count in one.dropped.items()) or "none"
        lines.append(f"{one.source:<14} {one.rows:,} rows, {one.examples:,} examples; dropped: {lost}")
    gone = f"{made.too_long.total():,} too long, {made.without_tokens.total():,} without tokens"
    gone += f", {made.cropped.total():,} cropped" if made.cropped else ""
    precision = "bfloat16" if training.bf16 else "float16" if training.fp16 else "float32"
    full = made.tokens / max(rows.epoch_rows * args.max_length, 1)
    lines += [
        f"sequences      {made.sequences.total():,} of {made.examples.total():,} examples; {gone}",
        f"tokens         {made.tokens:,}, {made.labelled:,} labelled; longest sequence {made.longest:,} of {args.max_length:,}",
        f"packed         {rows.epoch_rows:,} rows, {full:.0%} full",
        *_mixture(rows),
        f"training       {training.max_steps:,} steps of {rows_per_step} rows × {args.max_length:,} tokens, about "
        f"{rows.count / max(rows.epoch_rows, 1):.1f} passes",
        f"precision      {precision} on {training.world_size} × {training.device}",
        f"memory         about {memory} per device, weights unsharded",
    ]
    if text is not None:
        lines.append(
            f"text loss      {text.tokens:,} tokens of {text.source}, before the first step and after the last"
        )
    return "\n".join(lines)


def _mixture(rows: PackedRows) -> list[str]:
    """A line per source where there are several."""
    shares = Shares.of(rows)
    if len(shares.names) == 1:
        return []
    return [
        f"mixture        {share:6.1%} {name}: {count:,} rows, {tokens:,} tokens"
        for name, count, tokens, share in zip(shares.names, shares.rows, shares.tokens, shares.shares, strict=True)
    ]
