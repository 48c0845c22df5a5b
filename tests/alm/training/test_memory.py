"""The estimate against what autograd really keeps."""

from typing import Any

import pytest
import torch
from peft import get_peft_model
from torch.utils._python_dispatch import TorchDispatchMode

from alm.adapters import lora_config
from alm.checkpoint import LoadedCheckpoint
from alm.training.memory import ParameterCount, estimate_memory


@pytest.mark.parametrize("checkpointing", [False, True])
def test_activations_are_about_right(make_language_model: Any, checkpointing: bool) -> None:
    loaded: LoadedCheckpoint = make_language_model()
    model, tokens = loaded.model.train(), 256
    if checkpointing:
        model.gradient_checkpointing_enable()
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    ids = torch.randint(0, 300, (1, tokens))
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        hidden = model.model(ids, use_cache=False).last_hidden_state  # kept alive: its graph
    real = sum(size for pointer, size in kept.items() if pointer not in own)
    count = sum(p.numel() for p in model.parameters())
    parameters = ParameterCount.of(model)
    assert parameters == (count, count, 0, 0)
    estimate = estimate_memory(model.config, parameters, tokens, 0, gradient_checkpointing=checkpointing)
    assert hidden.requires_grad and estimate.weights == 4 * count and estimate.total > 16 * count
    alive = 0.0
    if checkpointing:  # one layer's activations come back only while it is computed again
        full = estimate_memory(model.config, parameters, tokens, 0).activations
        alive = (full - 3 * 4 * tokens * model.config.hidden_size) / model.config.num_hidden_layers
    assert 0.6 < (estimate.activations - alive) / real < 1.7


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_frozen_weights_have_neither_gradient_nor_moments(language_model: LoadedCheckpoint, dtype: torch.dtype) -> None:
    model = language_model.model.to(dtype)
    frozen = sum(p.numel() for p in model.parameters())
    vocabulary = language_model.processor.vocabulary
    tuned = get_peft_model(model, lora_config(vocabulary, 4))
    parameters = ParameterCount.of(tuned)
    assert parameters.total == frozen + parameters.trained
    assert parameters.trained == tuned.get_nb_trainable_parameters()[0]
    table = model.config.vocab_size * model.config.hidden_size * dtype.itemsize
    assert (parameters.frozen_bytes, parameters.copied_bytes) == (frozen * dtype.itemsize, 2 * table)
    estimate = estimate_memory(model.config, parameters, 256, 0)
    assert estimate.optimizer == 8 * parameters.trained
    assert estimate.weights == 4 * parameters.trained + parameters.frozen_bytes

    tuned(input_ids=torch.arange(300)[None], use_cache=False).logits.sum().backward()
    optimizer = torch.optim.AdamW([p for p in tuned.parameters() if p.requires_grad])
    optimizer.step()
    moments = sum(v.nbytes for state in optimizer.state.values() for v in state.values() if v.ndim)
    assert moments == estimate.optimizer
    assert sum(p.grad.nbytes for p in tuned.parameters() if p.grad is not None) == 4 * parameters.trained


def test_the_table_is_copied_whole_for_its_new_rows(language_model: LoadedCheckpoint) -> None:
    model = get_peft_model(language_model.model, lora_config(language_model.processor.vocabulary, 4))
    shape = model.get_base_model().get_input_embeddings().weight.shape
    made: list[torch.Size] = []

    class Made(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            out = func(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor) and out.shape == shape and func is torch.ops.aten.index_copy.default:
                made.append(out.shape)
            return out

    with Made():
        model(input_ids=torch.arange(9)[None], use_cache=False)
    assert len(made) == 2  # once for the embedding, gone before the head's; the head's lives until its gradient is made


def test_scaling() -> None:
    from transformers import Qwen3Config

    config = Qwen3Config(
        vocab_size=168_064,
        hidden_size=1024,
        intermediate_size=3072,
        num_hidden_layers=28,
        num_attention_heads=16,
        num_key_value_heads=8,
        head_dim=128,
    )
    parameters = ParameterCount(600_000_000, 600_000_000, 0, 0)
    full = estimate_memory(config, parameters, 16_384, 500)
    lean = estimate_memory(config, parameters, 16_384, 500, half_precision=True, gradient_checkpointing=True)
    assert lean.activations < 0.1 * full.activations and full.logits == 12 * 500 * 168_064
    assert "GiB" in str(full) and "activations" in str(full)
