"""The plan's memory against what a training step really allocates, over small shapes: a table of both and their ratio.

    python benchmarks/training_memory.py

Measured on the CPU by looking at every tensor that an operation makes and when its storage goes (a `TorchDispatchMode`): the peak of
forward, backward and AdamW's step, the second of two. What an operation takes inside itself, and the allocator, it does not see. Two packed
documents a row, attention document by document, loss over labelled positions: as `alm.training.sft` on a CPU. Exit code 1 beyond 15 %.
"""

import sys
from typing import Any, NamedTuple

from alm.arguments import run_main


class Case(NamedTuple):
    """A shape and how it is trained; `lora`: rank of LoRA, with the upper half of the rows trained."""

    width: int = 256
    inner: int = 768
    layers: int = 4
    heads: int = 4
    key_heads: int = 2
    head_dim: int = 64
    rows: int = 4096
    tokens: int = 1024
    labelled: int = 64
    checkpointing: bool = False
    half: bool = False
    tied: bool = True
    lora: int = 0

    def __str__(self) -> str:
        words = (
            f"D {self.width}, F {self.inner}, L {self.layers}, V {self.rows}, T {self.tokens}, {self.labelled} labelled"
        )
        flags = {"checkpointing": self.checkpointing, "bf16": self.half, "untied": not self.tied}
        return ", ".join(
            [words, *(name for name, on in flags.items() if on), *([f"LoRA {self.lora}"] if self.lora else [])]
        )


CASES = (
    Case(),
    Case(checkpointing=True),
    Case(labelled=512, checkpointing=True),
    Case(half=True),
    Case(checkpointing=True, half=True),
    Case(128, 384, 8, 4, 2, 32, 16384, 2048, 64, True),
    Case(128, 384, 8, 4, 2, 32, 16384, 2048, 512),
    Case(256, 1024, 3, 8, 4, 64, 1024, 512, 20, tied=False),
    Case(128, 384, 8, 4, 2, 32, 16384, 512, 512, True, True),
    Case(384, 1024, 6, 6, 2, 64, 8192, 256),
    Case(lora=8),
    Case(half=True, checkpointing=True, lora=8),
    Case(rows=16384, labelled=256, half=True, tied=False, lora=8),
)


def main() -> None:
    worst = 0.0
    print(f"{'measured':>9} {'planned':>9} {'ratio':>6}  MiB; case")
    for case in CASES:
        measured, planned = measure(case), plan(case)
        worst = max(worst, abs(planned / measured - 1))
        print(f"{measured / 2**20:9.1f} {planned / 2**20:9.1f} {planned / measured:6.2f}  {case}", flush=True)
    print(f"largest deviation {worst:.0%}")
    if worst > 0.15:
        sys.exit(1)


def build(case: Case) -> Any:
    """The model of a case, random, ready to train."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import Qwen3Config, Qwen3ForCausalLM

    from alm.training.attention import use_attention_by_document

    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=case.rows,
        hidden_size=case.width,
        intermediate_size=case.inner,
        num_hidden_layers=case.layers,
        num_attention_heads=case.heads,
        num_key_value_heads=case.key_heads,
        head_dim=case.head_dim,
        tie_word_embeddings=case.tied,
    )
    model = Qwen3ForCausalLM(config).train()
    if case.lora:
        new = list(range(case.rows // 2, case.rows))
        tables = {"embed_tokens": new} if case.tied else {"embed_tokens": new, "lm_head": new}
        tuning = LoraConfig(
            r=case.lora, target_modules="all-linear", task_type="CAUSAL_LM", trainable_token_indices=tables
        )
        model = get_peft_model(model.bfloat16() if case.half else model, tuning)
    use_attention_by_document(model)
    if case.checkpointing:
        model.gradient_checkpointing_enable()
    return model


def measure(case: Case) -> float:
    """Bytes of tensors at the worst moment of a training step."""
    import torch
    import torch.nn.functional as F

    from codec.live_tensors import peak_bytes

    model = build(case)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], fused=True)
    ids, half = torch.randint(0, case.rows, (1, case.tokens)), case.tokens // 2
    bounds = torch.tensor([0, half, case.tokens], dtype=torch.int32)
    documents = {"cu_seq_lens_q": bounds, "cu_seq_lens_k": bounds, "max_length_q": half, "max_length_k": half}
    positions = torch.arange(case.tokens)[None] % half
    labelled = torch.arange(case.tokens - case.labelled, case.tokens)

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=case.half):
            logits = model(
                input_ids=ids, position_ids=positions, use_cache=False, logits_to_keep=labelled, **documents
            ).logits[0]
            loss = F.cross_entropy(logits.float(), ids[0, : case.labelled], reduction="sum")
        loss.backward()
        optimizer.step()

    step()
    kept = [*model.parameters(), *model.buffers(), *(p.grad for p in model.parameters() if p.grad is not None), ids]
    kept += [value for state in optimizer.state.values() for value in state.values()]
    return float(peak_bytes(step, kept))  # the first step's gradients are still there, as under accumulation


def plan(case: Case) -> float:
    """Bytes that the plan says."""
    from alm.training.layout import Layout
    from alm.training.memory import ParameterCount, estimate_memory

    model, layout = build(case), Layout(half_precision=case.half, gpu=False)
    return estimate_memory(
        model.config, ParameterCount.of(model), case.tokens, case.labelled, layout, case.checkpointing
    ).total


if __name__ == "__main__":
    run_main(main)
