"""An estimate of what a training step needs, before it runs out of memory."""

from typing import NamedTuple

from torch import nn
from transformers import PretrainedConfig


class ParameterCount(NamedTuple):
    """A model's parameters: all, the trained ones, and what the frozen ones and copied tables weigh in bytes."""

    total: int
    trained: int
    frozen_bytes: int
    copied_bytes: int

    @classmethod
    def of(cls, model: nn.Module) -> "ParameterCount":
        """Count; under ZeRO-3 too, where the local shape is empty. Tied matrices count once."""
        sizes = {name: int(getattr(p, "ds_numel", p.numel())) for name, p in model.named_parameters()}
        frozen = {name: p for name, p in model.named_parameters() if not p.requires_grad}
        # to train single rows peft copies the whole table at each use, and its gradient is whole again
        single_rows = any("trainable_tokens_delta" in name for name in sizes)
        tables = [p for name, p in frozen.items() if "token_adapter" in name] if single_rows else []
        return cls(
            total=sum(sizes.values()),
            trained=sum(size for name, size in sizes.items() if name not in frozen),
            frozen_bytes=sum(sizes[name] * p.element_size() for name, p in frozen.items()),
            copied_bytes=max((2 * int(table.numel()) * table.element_size() for table in tables), default=0),
        )


class MemoryEstimate(NamedTuple):
    """Bytes on one device, without the framework's own share (about 1 GB on a GPU) and fragmentation."""

    weights: float
    gradients: float
    optimizer: float
    activations: float
    logits: float

    @property
    def total(self) -> float:
        """Sum of all parts."""
        return sum(self)

    def __str__(self) -> str:
        parts = ", ".join(f"{name} {value / 2**30:.2f}" for name, value in self._asdict().items())
        return f"{self.total / 2**30:.2f} GiB ({parts})"


def estimate_memory(
    config: PretrainedConfig,
    parameters: ParameterCount,
    tokens: int,
    labelled: int,
    half_precision: bool = False,
    gradient_checkpointing: bool = False,
) -> MemoryEstimate:
    """Memory of one AdamW step of a Qwen3-like model on one device without sharding.

    `tokens` is the length of the packed row times rows per device, `labelled` how many of them the loss sees. Trained weights, their
    gradients and AdamW's two moments are float32; frozen weights are as they are kept and have neither. Activations are float32, or
    bfloat16 under `half_precision`. With `gradient_checkpointing` one layer's activations and the input of each layer are alive at a
    time. Logits are kept for labelled positions only: the values, their log-softmax and its gradient in float32.
    """
    item = 2 if half_precision else 4
    width, layers, head = config.hidden_size, config.num_hidden_layers, config.head_dim
    queries, keys = config.num_attention_heads * head, config.num_key_value_heads * head
    # per token and layer: both norms (input, normalised, output), projections before and after norm and rotation, attention in and out, MLP
    layer = 6 * width + 4 * (queries + keys) + keys + 2 * queries + 4 * config.intermediate_size
    kept = layers * width + layer if gradient_checkpointing else layers * layer
    return MemoryEstimate(
        weights=4.0 * parameters.trained + parameters.frozen_bytes,
        gradients=4.0 * parameters.trained + parameters.copied_bytes,
        optimizer=8.0 * parameters.trained,
        activations=float(item * tokens * (kept + 3 * width)),
        logits=12.0 * labelled * config.vocab_size,
    )
