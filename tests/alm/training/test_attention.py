"""Attention by document equals each document alone, in values and gradients."""

from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from alm.checkpoint import LoadedCheckpoint
from alm.data.example import DataError
from alm.training import attention
from alm.training.attention import NAME, use_attention, use_attention_by_document

same_fixture = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=15)


def packed(documents: list[list[int]]) -> dict[str, Any]:
    """As TRL's collator makes it of packed rows."""
    rows = [{"input_ids": [t for d in documents for t in d], "seq_lengths": [len(d) for d in documents]}]
    rows[0]["labels"] = rows[0]["input_ids"]
    batch = DataCollatorForLanguageModeling(pad_token_id=0, padding_free=True)(rows)
    batch.pop("labels")
    return batch


@same_fixture
@given(st.lists(st.lists(st.integers(0, 300), min_size=1, max_size=12), min_size=1, max_size=5))
def test_equals_each_document_alone(language_model: LoadedCheckpoint, documents: list[list[int]]) -> None:
    model = language_model.model
    model.set_attn_implementation("sdpa")
    alone = [model(torch.tensor([document]), use_cache=False).logits[0] for document in documents]
    dense = model(**packed(documents), use_cache=False).logits[0]
    use_attention_by_document(model)
    together = model(**packed(documents), use_cache=False).logits[0]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(together, dense, atol=1e-5, rtol=1e-5)


def test_gradients(language_model: LoadedCheckpoint) -> None:
    model = language_model.model
    documents = [[5, 6, 7, 8], [9, 10], [11, 12, 13]]

    def gradient(name: str) -> torch.Tensor:
        use_attention_by_document(model) if name == "documents" else model.set_attn_implementation(name)
        model.zero_grad()
        model(**packed(documents), use_cache=False).logits.square().mean().backward()
        return torch.cat([p.grad.flatten() for p in model.parameters()])

    torch.testing.assert_close(gradient("documents"), gradient("sdpa"), atol=1e-6, rtol=1e-4)


def test_anything_else_is_refused(language_model: LoadedCheckpoint, tmp_path: Any) -> None:
    model = language_model.model
    use_attention_by_document(model)
    with pytest.raises(ValueError, match="for one packed row"):
        model(torch.tensor([[1, 2, 3]]))
    batch = packed([[1, 2], [3, 4]])
    with pytest.raises(ValueError, match="for one packed row"):
        model(**{**batch, "input_ids": batch["input_ids"].repeat(2, 1), "position_ids": None}, use_cache=False)
    model.save_pretrained(tmp_path)
    assert "by_document" not in (tmp_path / "config.json").read_text()


@pytest.mark.parametrize(
    ("name", "cuda", "use_cpu", "flash", "chosen"),
    [
        ("auto", True, False, True, "flash_attention_2"),
        ("auto", True, False, False, NAME),
        ("auto", True, True, True, NAME),
        ("auto", False, False, True, NAME),
        ("by_document", True, False, True, NAME),
        ("sdpa", True, False, True, "sdpa"),
    ],
)
def test_chosen_by_what_is_there(
    monkeypatch: pytest.MonkeyPatch, name: str, cuda: bool, use_cpu: bool, flash: bool, chosen: str
) -> None:
    class Model:
        def set_attn_implementation(self, name: str) -> None:
            self.name = name

    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(attention, "is_flash_attn_2_available", lambda: flash)
    model: Any = Model()
    use_attention(model, name, use_cpu)
    assert model.name == chosen


def test_what_is_not_installed_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "is_flash_attn_2_available", lambda: False)
    model: Any = None  # not reached
    with pytest.raises(DataError, match=r"flash_attn is not installed.* give --attention auto"):
        use_attention(model, "flash_attention_2", use_cpu=False)
