"""The trainer: packed rows equal separate documents, and the CPU's short cut equals TRL's own loss and plain cross-entropy."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from datasets import Dataset
from trl import SFTTrainer

from alm.checkpoint import LoadedCheckpoint
from alm.data.example import DataError
from alm.training.sft import SequenceConfig, SequenceTrainer, build_trainer, save_final

LENGTHS = (9, 14, 5, 20, 11, 7)


def documents() -> list[dict[str, list[int]]]:
    generator = torch.Generator().manual_seed(0)
    rows = []
    for length in LENGTHS:
        ids = torch.randint(0, 300, (length,), generator=generator).tolist()
        rows.append({"input_ids": ids, "labels": [-100] * (length - 3) + ids[-3:]})
    rows[2]["labels"] = rows[2]["input_ids"]  # wholly labelled, its first token too
    return rows


def config(folder: Path, **options: Any) -> SequenceConfig:
    fixed = {
        "output_dir": str(folder),
        "packing": True,
        "max_length": 32,
        "per_device_train_batch_size": 2,
        "max_steps": 2,
        "report_to": "none",
        "save_strategy": "no",
        "logging_steps": 1,
        "disable_tqdm": True,
        "gradient_checkpointing": False,
        "learning_rate": 1e-3,
    }
    return SequenceConfig(**{**fixed, **options})


def trainer_of(language_model: LoadedCheckpoint, folder: Path, **options: Any) -> SequenceTrainer:
    return build_trainer(*language_model, Dataset.from_list(documents()), config(folder, **options))


def gradient(model: torch.nn.Module) -> torch.Tensor:
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


@pytest.mark.parametrize("checkpointing", [False, True])
def test_loss_and_gradients_equal_plain_cross_entropy_and_trl(
    language_model: LoadedCheckpoint, tmp_path: Path, checkpointing: bool
) -> None:
    model = language_model.model
    pairs = [(torch.tensor([row["input_ids"]]), torch.tensor([row["labels"]])) for row in documents()]
    losses = [
        F.cross_entropy(model(ids).logits[0, :-1], labels[0, 1:], reduction="sum", ignore_index=-100)
        for ids, labels in pairs
    ]
    labelled = sum(int((labels[:, 1:] != -100).sum()) for _, labels in pairs)
    plain = sum(losses) / labelled
    plain.backward()
    expected = gradient(model)

    trainer = trainer_of(language_model, tmp_path, per_device_train_batch_size=8, gradient_checkpointing=checkpointing)
    assert len(trainer.train_dataset) < len(LENGTHS)  # packed
    batch = next(iter(trainer.get_train_dataloader()))
    assert "attention_mask" not in batch and sorted(batch["cu_seq_lens_q"].diff().tolist()) == sorted(LENGTHS)
    for compute in (SequenceTrainer.compute_loss, SFTTrainer.compute_loss):
        for count in (None, torch.tensor(labelled), 2 * labelled):
            model.zero_grad()
            loss = compute(trainer, model, dict(batch), num_items_in_batch=count)
            loss.backward()
            scale = 2 if count == 2 * labelled else 1
            torch.testing.assert_close(loss * scale, plain)
            torch.testing.assert_close(gradient(model) * scale, expected, atol=1e-6, rtol=1e-4)


def test_packed_logits_equal_separate_ones(language_model: LoadedCheckpoint, tmp_path: Path) -> None:
    model = language_model.model
    alone = {tuple(row["input_ids"]): model(torch.tensor([row["input_ids"]])).logits[0] for row in documents()}
    for attention in ("by_document", "sdpa"):
        args = config(tmp_path, per_device_train_batch_size=8)
        trainer = build_trainer(*language_model, Dataset.from_list(documents()), args, attention)
        batch = dict(next(iter(trainer.get_train_dataloader())))
        batch.pop("labels")
        logits = model(**batch, use_cache=False).logits[0].detach()
        bounds = batch["cu_seq_lens_q"].tolist()
        for start, end in pairwise(bounds):
            ids = tuple(batch["input_ids"][0, start:end].tolist())
            torch.testing.assert_close(logits[start:end], alone[ids], atol=1e-5, rtol=1e-5)


def test_a_row_without_labels_is_no_trouble(language_model: LoadedCheckpoint, tmp_path: Path) -> None:
    trainer = trainer_of(language_model, tmp_path)
    batch = next(iter(trainer.get_train_dataloader()))
    batch["labels"] = torch.full_like(batch["labels"], -100)
    loss = trainer.compute_loss(language_model.model, dict(batch), num_items_in_batch=torch.tensor(5))
    loss.backward()
    assert loss.item() == 0


def test_training_learns_logs_and_saves(language_model: LoadedCheckpoint, tmp_path: Path) -> None:
    trainer = trainer_of(
        language_model, tmp_path, max_steps=30, save_strategy="steps", save_steps=20, learning_rate=1e-2
    )
    trainer.train()
    save_final(trainer)
    lines = [json.loads(line) for line in (tmp_path / "training_log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [*range(1, 31), 30]
    assert (
        lines[29]["loss"] < 0.5 * lines[0]["loss"]
        and lines[29]["mean_token_accuracy"] > lines[0]["mean_token_accuracy"]
    )
    assert (tmp_path / "checkpoint-20" / "processor_config.json").is_file()
    assert not (tmp_path / "training_args.bin").exists() and not (tmp_path / "README.md").exists()
    saved = json.loads((tmp_path / "config.json").read_text())
    assert saved["use_cache"] is True and "by_document" not in json.dumps(saved)
    assert language_model.model.config._attn_implementation == "sdpa"


def test_configuration(tmp_path: Path) -> None:
    assert config(tmp_path).bf16 is torch.cuda.is_available() or not torch.cuda.is_bf16_supported()
    for wrong in ({"packing": False}, {"packing_strategy": "wrapped"}, {"max_length": None}):
        with pytest.raises(ValueError, match="trained packed"):
            config(tmp_path, **wrong)


def test_nothing_to_train_on(language_model: LoadedCheckpoint, tmp_path: Path) -> None:
    empty = Dataset.from_dict({"input_ids": [], "labels": []})
    with pytest.raises(DataError, match="no sequences"):
        build_trainer(*language_model, empty, config(tmp_path))
