"""The trainer: packed rows equal separate documents, and the CPU's short cut equals TRL's own loss and plain cross-entropy."""

import json
import pickle
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from trl import SFTTrainer

from alm.adapters import lora_config, new_rows
from alm.checkpoint import LoadedCheckpoint, load_checkpoint, save_checkpoint
from alm.data.example import DataError
from alm.data.packing import pack
from alm.training.lora import require_same_tuning, with_lora
from alm.training.sft import SequenceConfig, SequenceTrainer, _by_position, build_trainer, save_final
from alm.training.spread import SPREAD, Spread
from alm.vocabulary import ContractError

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


class Packed(torch.utils.data.Dataset[dict[str, Any]]):
    """Documents in packed rows, in the columns of `alm.data.rows.PackedRows`."""

    def __init__(self, rows: list[dict[str, list[int]]]) -> None:
        self.packed = [[rows[i] for i in row] for row in pack([len(row["input_ids"]) for row in rows], 32)]

    def __len__(self) -> int:
        return len(self.packed)

    def __getitem__(self, number: int) -> dict[str, Any]:
        row = self.packed[number]
        joined = {name: list(chain.from_iterable(one[name] for one in row)) for name in ("input_ids", "labels")}
        return {**joined, "seq_lengths": [len(one["input_ids"]) for one in row]}


def trainer_of(language_model: LoadedCheckpoint, folder: Path, **options: Any) -> SequenceTrainer:
    return build_trainer(*language_model, Packed(documents()), config(folder, **options))


def gradient(model: torch.nn.Module) -> torch.Tensor:
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_loss_and_gradients_equal_plain_cross_entropy_and_trl(
    make_language_model: Any, tmp_path: Path, tied: bool, checkpointing: bool
) -> None:
    language_model: LoadedCheckpoint = make_language_model(tied=tied)
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
        trainer = build_trainer(*language_model, Packed(documents()), args, attention)
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


@pytest.mark.slow
def test_compiled_steps_are_the_plain_ones(make_language_model: Any, tmp_path: Path) -> None:
    """Captured and differentiated by PyTorch's compiler; its last stage, which needs a C++ compiler and minutes, is in docs/log.md."""
    losses = []
    for options in ({}, {"torch_compile": True, "torch_compile_backend": "aot_eager"}):
        trainer = trainer_of(make_language_model(), tmp_path, **options)
        trainer.train()
        losses.append([line["loss"] for line in trainer.state.log_history if "loss" in line])
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)


def test_configuration(tmp_path: Path) -> None:
    assert config(tmp_path).bf16 is torch.cuda.is_available() or not torch.cuda.is_bf16_supported()
    for wrong in ({"packing": False}, {"packing_strategy": "wrapped"}, {"max_length": None}):
        with pytest.raises(ValueError, match="trained packed"):
            config(tmp_path, **wrong)


def test_nothing_to_train_on(language_model: LoadedCheckpoint, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no sequences"):
        build_trainer(*language_model, Packed([]), config(tmp_path))


def with_audio(loaded: LoadedCheckpoint) -> list[dict[str, list[int]]]:
    """Documents in which every new row is heard and answered."""
    rows = documents()
    for number, token in enumerate(new_rows(loaded.processor.vocabulary)):
        row = rows[number % len(rows)]
        row["input_ids"] = [token, *row["input_ids"][:3], token]
        row["labels"] = [-100] * 4 + [token]
    return rows


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_lora_has_the_loss_and_gradients_of_plain_cross_entropy_and_trl(
    make_language_model: Any, tmp_path: Path, tied: bool, checkpointing: bool
) -> None:
    loaded: LoadedCheckpoint = make_language_model(tied=tied)
    args = config(tmp_path, per_device_train_batch_size=8, gradient_checkpointing=checkpointing)
    model = with_lora(loaded.model, lora_config(loaded.processor.vocabulary, 4), "base", args)
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:  # zero at first: their A would have no gradient
            parameter.data.normal_(std=0.05, generator=generator)
    rows = with_audio(loaded)
    pairs = [(torch.tensor([row["input_ids"]]), torch.tensor([row["labels"]])) for row in rows]
    losses = [
        F.cross_entropy(model(input_ids=ids).logits[0, :-1], labels[0, 1:], reduction="sum", ignore_index=-100)
        for ids, labels in pairs
    ]
    plain = sum(losses) / sum(int((labels[:, 1:] != -100).sum()) for _, labels in pairs)
    plain.backward()
    expected = gradient(model)
    assert expected.numel() == sum(p.numel() for p in model.parameters() if p.requires_grad)

    trainer = build_trainer(model, loaded.processor, Packed(rows), args)
    batch = next(iter(trainer.get_train_dataloader()))
    # a GPU takes TRL's: it reads the head's weight, which must be the one with the trained rows
    for compute in (SequenceTrainer.compute_loss, SFTTrainer.compute_loss):
        model.zero_grad()
        loss = compute(trainer, model, dict(batch))
        loss.backward()
        torch.testing.assert_close(loss, plain)
        torch.testing.assert_close(gradient(model), expected, atol=1e-6, rtol=1e-4)


def test_lora_ends_as_a_plain_checkpoint_with_its_adapter(language_model: LoadedCheckpoint, tmp_path: Path) -> None:
    base, output = tmp_path / "base", tmp_path / "lm"
    save_checkpoint(*language_model, base)
    args = config(output, max_steps=30, save_strategy="steps", save_steps=20, learning_rate=1e-2)
    model = with_lora(language_model.model, lora_config(language_model.processor.vocabulary, 4), str(base), args)
    trainer = build_trainer(model, language_model.processor, Packed(with_audio(language_model)), args)
    trainer.train()
    save_final(trainer)
    lines = [json.loads(line) for line in (output / "training_log.jsonl").read_text().splitlines()]
    assert lines[29]["loss"] < 0.5 * lines[0]["loss"]
    assert not list(output.glob("adapter_*")) and not list(output.rglob("README.md"))
    assert not (output / "training_args.bin").exists() and not (output / "adapter" / "training_args.bin").exists()
    ids = torch.arange(50)[None]
    ours, adapter, early = (
        load_checkpoint(folder, check_codec=False).model(ids).logits
        for folder in (output, output / "adapter", output / "checkpoint-20")
    )
    torch.testing.assert_close(ours, adapter, atol=1e-6, rtol=0)
    assert (ours - early).abs().max() > 1e-3
    named = json.loads((output / "adapter" / "adapter_config.json").read_text())["base_model_name_or_path"]
    assert named == str(base)


def test_loras_first_values_depend_on_the_seed_alone(make_language_model: Any, tmp_path: Path) -> None:
    drawn = []
    for seed, noise in ((1, 0), (1, 7), (2, 0)):
        loaded = make_language_model()
        torch.manual_seed(noise)
        lora = lora_config(loaded.processor.vocabulary, 4)
        model = with_lora(loaded.model, lora, "base", config(tmp_path, seed=seed))
        drawn.append(torch.cat([p.flatten() for p in model.parameters() if p.requires_grad]))
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])


def test_lora_that_cannot_work_is_refused(
    language_model: LoadedCheckpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lora = lora_config(language_model.processor.vocabulary, 4)
    args = config(tmp_path)
    args.fsdp = True
    with pytest.raises(ContractError, match="ZeRO-3 and FSDP"):
        with_lora(language_model.model, lora, "base", args)
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(ContractError, match="is an adapter"):
        with_lora(language_model.model, lora, str(tmp_path), config(tmp_path))
    monkeypatch.setattr("alm.training.lora.is_deepspeed_zero3_enabled", lambda: True)
    with pytest.raises(ContractError, match="ZeRO-3 and FSDP"):
        with_lora(language_model.model, lora, "base", config(tmp_path))


def test_going_on_needs_the_same_tuning(language_model: LoadedCheckpoint, tmp_path: Path) -> None:
    vocabulary = language_model.processor.vocabulary
    model = with_lora(language_model.model, lora_config(vocabulary, 4), "base", config(tmp_path))
    model.save_pretrained(tmp_path / "lora")
    (tmp_path / "full").mkdir()
    lora, full = str(tmp_path / "lora"), str(tmp_path / "full")
    for checkpoint, wanted in ((None, lora_config(vocabulary, 8)), (lora, lora_config(vocabulary, 4)), (full, None)):
        require_same_tuning(checkpoint, wanted, "base")
    for checkpoint, wanted, base, message in (
        (lora, lora_config(vocabulary, 8), "base", "rank 4, alpha 8.* asks for LoRA of rank 8, alpha 16"),
        (lora, lora_config(vocabulary, 4), "other", "on base, .* on other"),
        (lora, None, "base", "asks for full fine-tuning"),
        (full, lora_config(vocabulary, 4), "base", "trained with full fine-tuning"),
    ):
        with pytest.raises(DataError, match=message):
            require_same_tuning(checkpoint, wanted, base)


def test_rows_travel_to_workers_that_are_not_forked(tmp_path: Path) -> None:
    """macOS spawns a data loader's workers, as does Linux from Python 3.14 on: what they read must pickle."""
    rows = _by_position(Packed(documents()))
    again = pickle.loads(pickle.dumps(rows))
    assert [again[n] for n in range(len(again))] == [rows[n] for n in range(len(rows))]


def test_another_number_of_processes_goes_on_with_what_all_had_summed(
    language_model: LoadedCheckpoint, tmp_path: Path
) -> None:
    """Three processes wrote it, one goes on: the loss is their mean, as the log's is, and labelled tokens are added up."""
    trainer = trainer_of(language_model, tmp_path)
    written = {"logged_loss": 7.0, "logged_step": 4, "tokens": 90, "metrics": {"entropy": [1.5]}}
    for process, loss in enumerate((1.0, 2.0, 6.0)):
        sums = {**written, "loss": loss, "counts": [process, 10.0]}
        (tmp_path / f"log_sums_{process}.json").write_text(json.dumps(sums))
    (tmp_path / SPREAD).write_text(json.dumps(Spread(3, 3, "none")._asdict()))
    assert trainer._sums_of(tmp_path) == {**written, "loss": 3.0, "counts": [3.0, 30.0]}
    trainer._tr_loss, trainer._total_loss_scalar = torch.tensor(0.0), 0.0
    trainer.take_log_sums(trainer._sums_of(tmp_path))
    trainer.state.global_step = 5
    trainer._total_loss_scalar += float(trainer._tr_loss)
    logs = {"train_loss": 3.0}  # Trainer's: as if one step had been all
    trainer.log(logs)
    assert logs["train_loss"] == 2.0
    (tmp_path / SPREAD).write_text(json.dumps(Spread(1, 1, "none")._asdict()))
    assert trainer._sums_of(tmp_path)["loss"] == 1.0  # its own
