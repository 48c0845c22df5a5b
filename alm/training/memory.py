"""An estimate of what a training step needs, before it runs out of memory.

Held to measured peaks on a CPU, unsharded (`benchmarks/training_memory.py`). What a GPU's loss takes and what sharding leaves is
arithmetic over what TRL and DeepSpeed do, and was never measured here.
"""

from typing import NamedTuple

from torch import nn
from transformers import PretrainedConfig

from alm.training.layout import Layout

TILE_ROWS, TILE_COLUMNS = 4096, 32_768
"""Logits that TRL 1.16 holds at a time on a GPU (`trl.kernels.chunked_logprob`, `trl.trainer.utils`)."""
BUCKET, LIVE = 500_000_000, 1_000_000_000
"""Defaults of DeepSpeed 0.19 in elements: `reduce_bucket_size`, `stage3_max_live_parameters` (`deepspeed.runtime.zero.config`)."""
FOUR_BITS = 0.5 + 1 / 64 + 4 / (64 * 256)
"""Bytes of a weight in bitsandbytes' NF4: 4 bits, a byte of scale for 64 of them, a float32 for 256 scales."""


class ParameterCount(NamedTuple):
    """A model's parameters: all, the trained ones, and what the frozen ones and copied tables weigh in bytes."""

    total: int
    trained: int
    frozen_bytes: int
    copied_bytes: int

    @classmethod
    def of(cls, model: nn.Module, quantized: bool = False) -> "ParameterCount":
        """Count; under ZeRO-3 too, where the local shape is empty. Tied matrices count once.

        `quantized`: frozen linear layers, here still whole, will be held in 4 bits but for the one that is being used.
        """
        sizes = {name: int(getattr(p, "ds_numel", p.numel())) for name, p in model.named_parameters()}
        frozen = {name: p for name, p in model.named_parameters() if not p.requires_grad}
        # to train single rows peft copies the whole table at each use, and its gradient is whole again
        single_rows = any("trainable_tokens_delta" in name for name in sizes)
        tables = [p for name, p in frozen.items() if "token_adapter" in name] if single_rows else []
        frozen_bytes = sum(sizes[name] * p.element_size() for name, p in frozen.items())
        if quantized:
            linear = {name: p for name, p in frozen.items() if ".layers." in name and p.ndim == 2}
            weights = sum(sizes[name] for name in linear)
            whole = max(sizes[name] * p.element_size() for name, p in linear.items())
            frozen_bytes += (
                whole + round(FOUR_BITS * weights) - sum(sizes[n] * p.element_size() for n, p in linear.items())
            )
        return cls(
            total=sum(sizes.values()),
            trained=sum(size for name, size in sizes.items() if name not in frozen),
            frozen_bytes=frozen_bytes,
            copied_bytes=max((2 * int(table.numel()) * table.element_size() for table in tables), default=0),
        )


class MemoryEstimate(NamedTuple):
    """Bytes on one device, without the framework's own share (about 1 GB on a GPU) and fragmentation.

    `activations` live from forward to backward, `working` while the backward pass is in one layer, `logits` while it is in the loss.
    """

    weights: float
    gradients: float
    optimizer: float
    activations: float
    working: float
    logits: float

    @property
    def total(self) -> float:
        """The peak: a layer and the loss are worked on one after the other."""
        return sum(self) - min(self.working, self.logits)

    def __str__(self) -> str:
        *parts, working, logits = (f"{name} {value / 2**30:.2f}" for name, value in self._asdict().items())
        return f"{self.total / 2**30:.2f} GiB ({', '.join(parts)}, and the larger of {working} and {logits})"


def estimate_memory(
    config: PretrainedConfig,
    parameters: ParameterCount,
    tokens: int,
    labelled: int,
    layout: Layout | None = None,
    gradient_checkpointing: bool = False,
    padded: int = 0,
) -> MemoryEstimate:
    """Memory of one AdamW step of a Qwen3-like model on one device of `layout` (default: one CPU in float32).

    `tokens` is the length of the packed row times rows per device, `labelled` how many of them the loss sees. With
    `gradient_checkpointing` the input of each layer is kept, and one layer's activations are computed again at a time. `padded`: the
    length of rows that are padded, not packed (preference training): attention has a mask, and TRL's tiles score them on any device.
    """
    layout = layout or Layout(gpu=False)
    # under autocast the residual stream keeps the float32 of the weights, else it is what the weights are cast to
    autocast = layout.half_precision and layout.sharding == "none" and not parameters.frozen_bytes
    layer, entry = _layer_bytes(config, layout.half_precision, autocast)
    if parameters.frozen_bytes:
        layer += _frozen_difference(config, layout.half_precision)
    item, layers = 2 if layout.half_precision else 4, config.num_hidden_layers
    layer += padded * item  # a mask
    ends = tokens * 3 * entry  # the embedding's output, the last norm's input and output
    backward = tokens * item * 2 * (config.intermediate_size + config.hidden_size)
    weights, gradients, optimizer = _states(config, parameters, layout)
    return MemoryEstimate(
        weights,
        gradients,
        optimizer,
        activations=float(ends + layers * tokens * (entry if gradient_checkpointing else layer)),
        working=float(backward + (tokens * layer if gradient_checkpointing else 0)),
        logits=_logits(config, labelled, layout, bool(parameters.frozen_bytes), tiled=layout.gpu or padded > 0),
    )


def _layer_bytes(config: PretrainedConfig, half_precision: bool, autocast: bool) -> tuple[int, int]:
    """What a layer keeps per token, and its input alone."""
    width, inner, head = config.hidden_size, config.intermediate_size, config.head_dim
    queries, keys = config.num_attention_heads * head, config.num_key_value_heads * head
    # both norms (input, normalised, output), projections before and after norm and rotation, attention in and out, MLP
    if not half_precision:
        return 4 * (6 * width + 4 * (queries + keys) + keys + 2 * queries + 4 * inner), 4 * width
    # norms compute in float32 whatever comes in
    norms = 20 * width + 12 * (queries + keys) if autocast else 16 * width + 10 * (queries + keys)
    return norms + 2 * keys + 4 * queries + 8 * inner, (4 if autocast else 2) * width


def _frozen_difference(config: PretrainedConfig, half_precision: bool) -> int:
    """What LoRA changes in `_layer_bytes`: frozen norms keep no normalised input, in half precision A keeps its own copies of inputs."""
    width, queries = config.hidden_size, config.num_attention_heads * config.head_dim
    normalised = 2 * width + queries + config.num_key_value_heads * config.head_dim
    copies = 5 * width + queries + config.intermediate_size if half_precision else 0
    return 2 * copies - (2 if half_precision else 4) * normalised


def _states(config: PretrainedConfig, parameters: ParameterCount, layout: Layout) -> tuple[float, float, float]:
    """Weights, gradients and optimizer, in bytes."""
    trained, frozen, n = parameters.trained, parameters.frozen_bytes, layout.processes
    table = config.vocab_size * config.hidden_size
    tables = table if config.tie_word_embeddings else 2 * table
    block = (parameters.total - tables) / config.num_hidden_layers
    # DeepSpeed: float32 master weights, two moments, and the float32 gradient of the step
    optimizer = 0.0 if layout.offloaded else (16.0 if layout.deepspeed else 8.0) * trained / n
    held = 2 if layout.half_precision else 4
    bucket = held * max(min(BUCKET, trained), table if trained > table else 0)
    if layout.sharding == "zero2":
        kept = 0.0 if layout.offloaded else held * trained / n
        return float(held * trained + frozen), kept + bucket + parameters.copied_bytes, optimizer
    if layout.sharding == "zero3":
        gathered = held * max(min(LIVE, parameters.total), tables + 2 * block)
        return (held * trained + frozen) / n + gathered, held * trained / n + bucket, optimizer
    if layout.sharding == "fsdp2":
        gathered = held * (
            tables + 2 * block
        )  # embedding and head stay gathered; the next layer comes while one is used
        return (4.0 * trained + frozen) / n + gathered, 4.0 * trained / n + gathered, optimizer
    casts = 2.0 * trained if layout.half_precision else 0.0
    buckets = 4.0 * trained if n > 1 else 0.0  # DDP's
    return 4.0 * trained + frozen + casts, 4.0 * trained + buckets + parameters.copied_bytes, 8.0 * trained


def _logits(config: PretrainedConfig, labelled: int, layout: Layout, frozen: bool, tiled: bool) -> float:
    """The loss and its backward pass: in TRL's tiles, with a float32 gradient of the whole head; else labelled positions."""
    rows, table = config.vocab_size, config.vocab_size * config.hidden_size
    held = 2 if layout.half_precision else 4
    if not tiled:  # values, log-softmax and its gradient; after them the head's gradient beside the logits'
        values = 14 if layout.half_precision else 12
        return float(max(values * labelled * rows, 4 * labelled * rows + 4 * table))
    scored = min(labelled, TILE_ROWS)
    tile = held * scored * TILE_COLUMNS
    if not layout.gpu:  # seven float32 tiles and one of bits, where a GPU's kernel has none
        tile += 29 * scored * min(rows, TILE_COLUMNS)
    hidden = (4 + 2 * held) * labelled * config.hidden_size
    # DeepSpeed's and FSDP's weights are in half precision and so is their gradient; a copied table's is counted already
    cast = 2 * table if layout.half_precision and layout.sharding != "none" and not frozen else 0
    return float(tile + hidden + 4 * table + cast)
