"""The estimate against what autograd really keeps."""

import runpy
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import get_peft_model
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import Qwen3Config

from alm.adapters import lora_config
from alm.checkpoint import LoadedCheckpoint
from alm.training.layout import Layout
from alm.training.memory import ParameterCount, estimate_memory


@pytest.mark.parametrize(
    "case",
    [
        {"layers": 2, "checkpointing": True},
        {"width": 128, "inner": 384, "rows": 8192, "labelled": 256, "half": True, "tied": False},
        {"layers": 2, "rows": 8192, "half": True, "checkpointing": True, "lora": 4},
    ],
    ids=["checkpointing", "bf16 logits", "LoRA"],
)
def test_the_estimate_is_what_a_step_allocates(case: dict[str, Any]) -> None:
    """Within 15 %; `benchmarks/training_memory.py` has more shapes."""
    benchmark = runpy.run_path(str(Path(__file__).parents[3] / "benchmarks" / "training_memory.py"))
    shape = benchmark["Case"](**{"tokens": 512, **case})
    assert benchmark["plan"](shape) == pytest.approx(benchmark["measure"](shape), rel=0.15)


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


def qwen3() -> Qwen3Config:
    """0.6B, grown."""
    shape = {"hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28, "num_attention_heads": 16}
    return Qwen3Config(vocab_size=168_064, num_key_value_heads=8, head_dim=128, **shape)


PARAMETERS = ParameterCount(600_000_000, 600_000_000, 0, 0)


def test_scaling() -> None:
    full = estimate_memory(qwen3(), PARAMETERS, 16_384, 1000)
    lean = estimate_memory(qwen3(), PARAMETERS, 16_384, 1000, Layout(half_precision=True, gpu=False), True)
    assert lean.activations < 0.1 * full.activations and full.logits == 12 * 1000 * 168_064
    assert full.total == sum(full) - full.working and lean.total < full.total
    assert "GiB" in str(full) and "activations" in str(full)


def test_sharding_divides_the_states() -> None:
    """16 bytes a parameter over all GPUs: bfloat16 weights and gradients, and 16 of float32 masters, moments and the step's gradient."""
    n = PARAMETERS.trained

    def states(sharding: Any, processes: int, **options: bool) -> Any:
        layout = Layout(processes, sharding, half_precision=True, **options)
        return estimate_memory(qwen3(), PARAMETERS, 2048, 2048, layout, True)

    one, offloaded = states("none", 1), states("zero2", 1, offloaded=True)
    assert (one.weights, one.gradients, one.optimizer) == (6 * n, 4 * n, 8 * n)
    assert states("none", 8).gradients == 8 * n and states("none", 8).optimizer == one.optimizer  # DDP's buckets
    assert (offloaded.weights, offloaded.optimizer) == (2 * n, 0)
    for sharding, states_of_one in (("zero2", 16 * n), ("zero3", 16 * n), ("fsdp2", 8 * n)):
        for processes in (2, 8, 16):
            assert states(sharding, processes).optimizer * processes == states_of_one
    assert states("zero2", 8).weights == 2 * n
    assert states("zero3", 8).weights - states("zero3", 16).weights == 2 * n / 16
    assert states("zero2", 8).activations == states("zero3", 16).activations > 0


def test_a_gpu_holds_a_tile_of_logits_not_all() -> None:
    layout = Layout(half_precision=True)
    tile, table = 2 * 4096 * 32_768, 168_064 * 1024
    few, many = (estimate_memory(qwen3(), PARAMETERS, 16_384, labelled, layout).logits for labelled in (4096, 16_384))
    assert few == tile + 8 * 4096 * 1024 + 4 * table and many - few == 8 * 12_288 * 1024


def test_four_bits_are_what_bitsandbytes_takes() -> None:
    bitsandbytes = pytest.importorskip("bitsandbytes")
    layers = torch.nn.ModuleDict({"layers": torch.nn.ModuleList([torch.nn.Linear(512, 512, bias=False)])})
    model = torch.nn.ModuleDict({"model": layers}).bfloat16().requires_grad_(False)
    held = ParameterCount.of(model, quantized=True).frozen_bytes - 2 * 512 * 512  # beside one layer that is unpacked
    weight = model["model"]["layers"][0].weight
    packed, state = bitsandbytes.functional.quantize_4bit(weight, quant_type="nf4", compress_statistics=True)
    assert held == packed.nbytes + state.absmax.nbytes + state.state2.absmax.nbytes
