"""The plan of a preference run: its memory against what TRL's own trainers really allocate, its words, and what it refuses."""

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import Qwen3Config, Qwen3ForCausalLM

from alm.adapters import lora_config
from alm.checkpoint import LoadedCheckpoint
from alm.preference.arguments import PreferenceArguments
from alm.preference.plan import Rows, preference_memory, turns_bytes
from alm.preference.trainers import PairConfig, PairTrainer, QuestionConfig, QuestionTrainer
from alm.training.layout import Layout
from alm.training.memory import ParameterCount
from alm.training.outline import Outline
from codec.live_tensors import peak_bytes

COMMON = {"use_cpu": True, "max_steps": 2, "report_to": "none", "save_strategy": "no", "disable_tqdm": True}


def model(half: bool = False) -> Any:
    torch.manual_seed(0)
    shape = {
        "hidden_size": 256,
        "intermediate_size": 768,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "head_dim": 64,
    }
    made = Qwen3ForCausalLM(Qwen3Config(vocab_size=8192, num_key_value_heads=2, tie_word_embeddings=True, **shape))
    return (made.bfloat16() if half else made).train()


def arguments(folder: Path, method: str, **more: Any) -> PreferenceArguments:
    rewards = ["validity"] if method == "grpo" else []
    return PreferenceArguments(method=method, model="m", output_dir=str(folder), data="d", rewards=rewards, **more)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize(("lora", "half"), [(0, False), (0, True), (8, True)])
def test_dpo_takes_what_is_planned(
    language_model: LoadedCheckpoint, tmp_path: Path, lora: int, half: bool, checkpointing: bool
) -> None:
    """Within 15 %."""
    vocabulary = language_model.processor.vocabulary
    pair = {"prompt_ids": [5] * 300, "chosen_ids": [6] * 200, "rejected_ids": [7] * 180}
    data = Dataset.from_list([pair] * 8)
    training = PairConfig(
        str(tmp_path), per_device_train_batch_size=2, gradient_checkpointing=checkpointing, bf16=half, **COMMON
    )
    reference = None if lora else model().requires_grad_(False)
    tuning = lora_config(vocabulary, lora) if lora else None
    trainer = PairTrainer(
        model(half and lora > 0),
        ref_model=reference,
        args=training,
        train_dataset=data,
        processor=language_model.processor,
        peft_config=tuning,
    )
    if lora:
        trainer.model.get_output_embeddings().bias = None
    planned = preference_memory(
        arguments(tmp_path, "dpo", lora_rank=lora),
        training,
        Layout(half_precision=half, gpu=False),
        Outline(trainer.model, vocabulary, 0),
        ParameterCount.of(trainer.model),
        Rows.of(data),
    )
    kept = [*trainer.model.parameters(), *(reference.parameters() if reference else [])]
    assert planned.total == pytest.approx(peak_bytes(trainer.train, kept), rel=0.15)


@pytest.mark.parametrize("beta", [0.0, 0.04])
def test_grpo_takes_what_is_planned(language_model: LoadedCheckpoint, tmp_path: Path, beta: float) -> None:
    """Within 15 %."""
    processor = language_model.processor
    text = "a" * 120
    length = len(processor.tokenizer(text).input_ids)
    data = Dataset.from_list([{"prompt": text, "prompt_tokens": length}] * 8)
    training = QuestionConfig(
        str(tmp_path),
        per_device_train_batch_size=4,
        num_generations=4,
        max_completion_length=200,
        beta=beta,
        gradient_checkpointing=False,
        generation_kwargs={"min_new_tokens": 200},
        **COMMON,
    )
    first = model()
    first.save_pretrained(tmp_path / "first")
    first.config._name_or_path = str(tmp_path / "first")  # where TRL finds the reference
    trainer = QuestionTrainer(
        first,
        reward_funcs=lambda completions, **_: [float(len(set(text))) for text in completions],
        args=training,
        train_dataset=data,
        processor=processor,
        grammar=None,
    )
    planned = preference_memory(
        arguments(tmp_path, "grpo"),
        training,
        Layout(gpu=False),
        Outline(first, processor.vocabulary, 0),
        ParameterCount.of(first),
        Rows.of(data),
    )
    kept = [*first.parameters(), *(trainer.ref_model.parameters() if trainer.ref_model else [])]
    assert planned.total == pytest.approx(peak_bytes(trainer.train, kept), rel=0.15)


@pytest.mark.parametrize(("prompt", "answer", "turns"), [(200, 3, 32), (4, 120, 64), (4, 3, 256)])
def test_turns_take_what_is_planned(prompt: int, answer: int, turns: int) -> None:
    """Within 15 %, whether reading the prompts is the peak, the last id's keys and values, or its scores."""
    drawer = model().eval()
    ids = torch.full((turns, prompt), 5)
    asked = {"max_new_tokens": answer, "min_new_tokens": answer, "do_sample": True, "top_k": 0, "pad_token_id": 0}

    def draw() -> None:
        with torch.no_grad():
            drawer.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **asked)

    parameters = ParameterCount.of(drawer)
    planned = turns_bytes(drawer.config, parameters, turns, prompt + answer, prompt, Layout(gpu=False))
    weights = 4 * parameters.total
    assert planned == pytest.approx(peak_bytes(draw, drawer.parameters()) - weights, rel=0.15)
