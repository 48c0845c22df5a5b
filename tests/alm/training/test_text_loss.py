"""Loss on held-out text: equal to plain Transformers, each token once, the model and its training left as they were."""

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from alm.adapters import lora_config
from alm.checkpoint import LoadedCheckpoint
from alm.data.example import DataError
from alm.encoding import IGNORED, TrainingIds
from alm.training.attention import use_attention_by_document
from alm.training.held_out_text import HeldOutText, pieces
from alm.training.lora import with_lora
from alm.training.sft import SequenceConfig, build_trainer
from alm.training.text_loss import RECORD, TextLoss, text_loss

TEXTS = ["a dog barks twice", "a bell rings, then a dog barks", "Zürich, 東京 and naïve café", "dog"]


class OneRow(torch.utils.data.Dataset[dict[str, Any]]):
    """The same packed row again and again."""

    def __len__(self) -> int:
        return 8

    def __getitem__(self, number: int) -> dict[str, Any]:
        return {"input_ids": [5, 6, 7, 8], "labels": [5, 6, 7, 8], "seq_lengths": [4]}


def write(path: Path, texts: list[str]) -> str:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return str(path)


def ids_of(loaded: LoadedCheckpoint, text: str) -> TrainingIds:
    message = {"role": "assistant", "content": [{"type": "text", "text": text}]}
    return loaded.processor.training_ids([message])


def measure(loaded: LoadedCheckpoint, text: HeldOutText, model: Any = None) -> dict[str, float]:
    rows = loaded.processor.vocabulary.start_id
    return text_loss(loaded.model if model is None else model, text, rows, Accelerator(cpu=True))


@torch.no_grad()
def plain(model: Any, texts: list[TrainingIds]) -> tuple[float, int]:
    """Transformers' own loss of each text by itself, over all tokens."""
    counts = [sum(label != IGNORED for label in one.labels[1:]) for one in texts]
    losses = [
        float(model(torch.tensor([one.input_ids]), labels=torch.tensor([one.labels])).loss) * count
        for one, count in zip(texts, counts, strict=True)
    ]
    return sum(losses) / sum(counts), sum(counts)


@pytest.mark.parametrize("attention", ["sdpa", "by_document"])
def test_it_is_transformers_loss_and_among_text_that_of_the_model_before_it_was_grown(
    make_language_model: Any, make_text_model: Any, tmp_path: Path, attention: str
) -> None:
    loaded = make_language_model(spare_rows=0)
    text = HeldOutText.read(write(tmp_path / "a.jsonl", TEXTS), loaded.processor)
    ids = [ids_of(loaded, one) for one in TEXTS]
    expected, tokens = plain(loaded.model, ids)
    before_growth, _ = plain(make_text_model(spare_rows=0)[0], ids)
    if attention == "by_document":
        use_attention_by_document(loaded.model)
    found = measure(loaded, text)
    assert len(text.rows) == 1 and text.tokens == tokens  # packed
    assert found["loss"] == pytest.approx(expected, rel=1e-5)
    assert found["loss_among_text"] == pytest.approx(before_growth, rel=1e-5)
    assert found["loss_among_text"] < found["loss"]
    assert found["perplexity"] == math.exp(found["loss"])
    assert found["perplexity_among_text"] == math.exp(found["loss_among_text"])


@given(length=st.integers(1, 40), limit=st.integers(2, 12), data=st.data())
def test_each_labelled_token_is_scored_once(length: int, limit: int, data: st.DataObject) -> None:
    answers = data.draw(st.lists(st.booleans(), min_size=length, max_size=length))
    ids = list(range(100, 100 + length))
    whole = TrainingIds(ids, [token if said else IGNORED for token, said in zip(ids, answers, strict=True)])
    scored: Counter[int] = Counter()
    for piece in pieces(whole, limit):
        assert len(piece.input_ids) == len(piece.labels) <= limit and piece.labels[0] == IGNORED
        assert piece.input_ids == list(range(piece.input_ids[0], piece.input_ids[0] + len(piece.input_ids)))
        assert all(label in (IGNORED, token) for token, label in zip(*piece, strict=True))
        scored.update(label for label in piece.labels if label != IGNORED)
    assert scored == Counter(label for label in whole.labels[1:] if label != IGNORED)


def test_a_long_text_is_scored_in_windows(make_language_model: Any, tmp_path: Path) -> None:
    loaded = make_language_model(max_length=16)
    said = " ".join(TEXTS * 3)
    text = HeldOutText.read(write(tmp_path / "a.jsonl", [said]), loaded.processor)
    loaded.processor.max_length = None
    ids = ids_of(loaded, said)
    windows = [
        TrainingIds(ids.input_ids[start : start + 16], ids.labels[start : start + 16])
        for start in range(0, len(ids.input_ids) - 1, 15)
    ]
    expected, tokens = plain(loaded.model, windows)
    assert text.tokens == tokens and len(text.rows) > 2
    assert measure(loaded, text)["loss"] == pytest.approx(expected, rel=1e-5)


def test_a_text_s_loss_does_not_depend_on_the_others(language_model: LoadedCheckpoint, tmp_path: Path) -> None:
    alone = [
        HeldOutText.read(write(tmp_path / f"{number}.jsonl", [one]), language_model.processor)
        for number, one in enumerate(TEXTS)
    ]
    expected = sum(measure(language_model, one)["loss"] * one.tokens for one in alone) / sum(
        one.tokens for one in alone
    )
    for order in (TEXTS, TEXTS[::-1]):
        together = HeldOutText.read(write(tmp_path / "a.jsonl", order), language_model.processor)
        assert measure(language_model, together)["loss"] == pytest.approx(expected, rel=1e-6)


def test_nothing_to_score(language_model: LoadedCheckpoint, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no text whose loss"):
        HeldOutText.read(write(tmp_path / "a.jsonl", [" "]), language_model.processor)
    with pytest.raises(DataError, match="none"):
        HeldOutText.read(str(tmp_path / "none.jsonl"), language_model.processor)


def trained(loaded: LoadedCheckpoint, folder: Path, text: HeldOutText | None, lora: bool, rate: float) -> Any:
    """Four steps, with or without the measurement."""
    args = SequenceConfig(
        output_dir=str(folder),
        max_steps=4,
        learning_rate=rate,
        packing=True,
        max_length=16,
        per_device_train_batch_size=2,
        gradient_accumulation_steps=2,
        logging_steps=4,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    model: Any = loaded.model
    if lora:
        model = with_lora(model, lora_config(loaded.processor.vocabulary, 4, None, 0.5), "base", args)
    trainer = build_trainer(model, loaded.processor, OneRow(), args)
    measure = None
    if text is not None:
        measure = TextLoss(trainer, text, loaded.processor, folder, going_on=False)
        trainer.add_callback(measure)
    trainer.train()
    trainer.save_model(str(folder / "saved"))
    return measure


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("rate", [0.0, 1e-2])
def test_training_is_the_one_without_it(make_language_model: Any, tmp_path: Path, lora: bool, rate: float) -> None:
    logs = []
    for name in ("plain", "measured"):
        loaded = make_language_model()
        text = HeldOutText.read(write(tmp_path / "a.jsonl", TEXTS), loaded.processor) if name == "measured" else None
        first = None if text is None else measure(loaded, text)
        found = trained(loaded, tmp_path / name, text, lora, rate)
        lines = [json.loads(line) for line in (tmp_path / name / "training_log.jsonl").read_text().splitlines()]
        logs.append([{**line, "seconds": 0} for line in lines if "loss" in line])
    assert logs[0] == logs[1] and "mean_token_accuracy" in logs[0][0]
    saved = [next((tmp_path / name / "saved").glob("*model.safetensors")) for name in ("plain", "measured")]
    one, other = map(load_file, saved)
    assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)

    before, after = found.found["before"], found.found["after"]
    assert before == pytest.approx(first)
    assert before == after if rate == 0 else abs(before["loss"] - after["loss"]) > 1e-2
    assert after == pytest.approx(measure(loaded, text, found.trainer.model), rel=1e-6)
    assert found.found["tokens"] == text.tokens and found.found["digest"] == text.digest
    assert [line["step"] for line in lines if "text_loss" in line] == [0, 4]
    assert [line["text_loss_among_text"] for line in lines if "text_loss" in line] == [
        before["loss_among_text"],
        after["loss_among_text"],
    ]
    assert json.loads((tmp_path / "measured" / RECORD).read_text()) == found.found
    assert "nats a token among text rows" in str(found)


def test_other_text_cannot_go_on(language_model: LoadedCheckpoint, tmp_path: Path) -> None:
    trainer = build_trainer(
        *language_model,
        OneRow(),
        SequenceConfig(output_dir=str(tmp_path), packing=True, max_length=16, report_to="none"),
    )
    texts = [
        HeldOutText.read(write(tmp_path / f"{number}.jsonl", TEXTS[number:]), language_model.processor)
        for number in range(2)
    ]
    fixed = (language_model.processor, tmp_path)
    begun = TextLoss(trainer, texts[0], *fixed, going_on=True)  # the run began without --text_loss
    assert begun.found["before"] is None and "not measured →" in str(begun)
    (tmp_path / RECORD).write_text(json.dumps({**begun.found, "before": {"loss": 1.0}}))
    assert TextLoss(trainer, texts[0], *fixed, going_on=True).found["before"] == {"loss": 1.0}
    assert TextLoss(trainer, texts[1], *fixed, going_on=False).found["before"] is None
    with pytest.raises(DataError, match=f"{texts[1].digest}.*{texts[0].digest}"):
        TextLoss(trainer, texts[1], *fixed, going_on=True)
