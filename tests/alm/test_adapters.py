"""LoRA on a grown Qwen3: what learns new tokens and stays tied, measured beside what does not, and how that is refused."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from alm import doctor
from alm.adapters import adapter_faults, lora_config, merge, new_rows, write_processor_file
from alm.checkpoint import LoadedCheckpoint, load_checkpoint, save_checkpoint
from alm.contract import require_no_faults
from alm.vocabulary import AudioVocabulary, ContractError

QUESTIONS = torch.arange(64)  # one text token each
Make = Callable[..., LoadedCheckpoint]


def wrapped(loaded: LoadedCheckpoint, base: Path | str = "base", **options: Any) -> Any:
    """A peft model with `options` and, where they are empty, our own configuration."""
    loaded.model.name_or_path = str(base)
    plain = {"r": 8, "lora_alpha": 16, "target_modules": "all-linear", "task_type": "CAUSAL_LM"}
    config = peft.LoraConfig(**{**plain, **options}) if options else lora_config(loaded.processor.vocabulary, 8)
    torch.manual_seed(0)
    return peft.get_peft_model(loaded.model, config)


def answers(vocabulary: AudioVocabulary) -> torch.Tensor:
    return torch.tensor(new_rows(vocabulary))[-64:]


def learn(model: Any, vocabulary: AudioVocabulary, steps: int = 40) -> float:
    """Train on a task whose answers are new tokens, one for each question; the last loss."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(steps):
        logits = model(input_ids=QUESTIONS[:, None]).logits[:, -1]
        loss = F.cross_entropy(logits, answers(vocabulary))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return float(loss)


def is_tied(model: Any) -> bool:
    return model.get_output_embeddings().weight is model.get_input_embeddings().weight


@pytest.fixture
def base(make_language_model: Make, tmp_path: Path) -> Callable[..., Path]:
    """A function that writes the grown model and says where."""

    def write(name: str = "base", **options: Any) -> Path:
        save_checkpoint(*make_language_model(**options), tmp_path / name)
        return tmp_path / name

    return write


def save_adapter(model: Any, loaded: LoadedCheckpoint, folder: Path) -> Path:
    model.save_pretrained(folder)
    write_processor_file(loaded.processor, folder)
    return folder


EMBEDDING, BOTH = ["embed_tokens"], ["embed_tokens", "lm_head"]
# options of peft's configuration, tied before, learns the task, tied after merging, the field that the refusal names
WAYS: dict[str, tuple[dict[str, Any], bool, bool, bool, str | None]] = {
    "plain LoRA": ({"r": 8}, True, False, True, "trainable_token_indices of embed_tokens"),
    "embedding saved": ({"modules_to_save": EMBEDDING}, True, False, False, "modules_to_save"),
    "both saved": ({"modules_to_save": BOTH}, True, True, False, "modules_to_save"),
    "untied, rows of the embedding alone": ({"trainable_token_indices": ...}, False, False, False, "lm_head"),
    "whole table, tied by peft": ({"modules_to_save": EMBEDDING, "ensure_weight_tying": True}, True, True, True, None),
    "untied, both saved": ({"modules_to_save": BOTH}, False, True, False, None),
    "ours, tied": ({}, True, True, True, None),
    "ours, untied": ({}, False, True, False, None),
}


@pytest.mark.parametrize(("options", "tied", "learns", "stays_tied", "field"), WAYS.values(), ids=WAYS.keys())
def test_what_learns_new_tokens_and_what_is_refused(
    base: Callable[..., Path],
    tmp_path: Path,
    options: dict[str, Any],
    tied: bool,
    learns: bool,
    stays_tied: bool,
    field: str | None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    loaded = load_checkpoint(folder := base(tied=tied), check_codec=False)
    vocabulary = loaded.processor.vocabulary
    if "trainable_token_indices" in options:
        options = {"trainable_token_indices": new_rows(vocabulary)}
    model = wrapped(loaded, folder, **options)
    loss = learn(model, vocabulary)
    # who does not learn the rows of the answers cannot even tell 64 answers from all other tokens
    assert loss < 0.3 if learns else loss > math.log(64)
    adapter = save_adapter(model, loaded, tmp_path / "adapter")
    if stays_tied is tied:
        assert is_tied(merge(model)) is tied
    else:
        with pytest.raises(ContractError, match="merging left embedding and output head untied"):
            merge(model)
        assert not is_tied(model.get_base_model())

    config = json.loads((adapter / "adapter_config.json").read_text())
    found = list(adapter_faults(config, vocabulary))
    capsys.readouterr()
    assert doctor.main([str(adapter), "--no_codec"]) == (field is not None)
    report = capsys.readouterr().out
    if field is None:
        assert not found and "✗" not in report
        load_checkpoint(adapter, check_codec=False)
        return
    assert [field in fault.field for fault in found] == [True] and found[0].field in report
    with pytest.raises(ContractError, match=field):
        require_no_faults(found, "this adapter")
    with pytest.raises(ContractError, match=field):
        load_checkpoint(adapter, check_codec=False)


@pytest.mark.parametrize("tied", [True, False])
def test_gradients_reach_new_rows_and_low_rank_updates_only(make_language_model: Make, tied: bool) -> None:
    loaded = make_language_model(tied=tied)
    before = {name: value.clone() for name, value in loaded.model.state_dict().items()}
    model = wrapped(loaded)
    learn(model, vocabulary := loaded.processor.vocabulary, steps=2)
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    rows = [p for name, p in trained.items() if "trainable_tokens_delta" in name]
    assert all(p.grad is not None for p in trained.values())
    assert all("lora_" in name or "trainable_tokens_delta" in name for name in trained)
    assert [len(p) for p in rows] == [len(new_rows(vocabulary))] * (1 if tied else 2)
    assert all(p.grad is None for name, p in model.named_parameters() if name not in trained)
    frozen = {name: p for name, p in model.named_parameters() if name not in trained}
    for name, value in frozen.items():
        plain = name.removeprefix("base_model.model.").replace(".token_adapter", "").replace(".base_layer", "")
        assert torch.equal(value, before[plain])


@pytest.mark.parametrize("tied", [True, False])
def test_merged_it_is_a_plain_qwen3_with_the_adapters_logits(
    base: Callable[..., Path], tmp_path: Path, tied: bool
) -> None:
    loaded = load_checkpoint(folder := base(tied=tied), check_codec=False)
    text = loaded.model.get_input_embeddings().weight[: loaded.processor.vocabulary.start_id].clone()
    model = wrapped(loaded, folder)
    learn(model, loaded.processor.vocabulary, steps=10)
    ids = torch.randint(0, loaded.processor.vocabulary.end, (4, 20), generator=torch.Generator().manual_seed(1))
    expected = model.eval()(input_ids=ids).logits.detach()
    adapter = save_adapter(model, loaded, tmp_path / "adapter")
    save_checkpoint(merge(model), loaded.processor, tmp_path / "merged")

    stock = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    assert type(stock).__name__ == "Qwen3ForCausalLM" and is_tied(stock) is tied
    assert (tmp_path / "merged" / "config.json").read_text() == (folder / "config.json").read_text()
    assert ("lm_head.weight" in load_file(tmp_path / "merged" / "model.safetensors")) is not tied
    assert doctor.main([str(tmp_path / "merged"), "--no_codec", "--weights"]) == 0
    for plain in (stock, load_checkpoint(adapter, check_codec=False).model):
        torch.testing.assert_close(plain(input_ids=ids).logits, expected, atol=1e-5, rtol=0)
        assert torch.equal(plain.get_input_embeddings().weight[: len(text)], text)
    again = peft.PeftModel.from_pretrained(load_checkpoint(folder, check_codec=False).model, adapter).eval()
    assert torch.equal(again(input_ids=ids).logits, expected)


def test_low_rank_updates_of_a_tied_matrix_are_refused(make_language_model: Make) -> None:
    loaded = make_language_model()
    vocabulary = loaded.processor.vocabulary
    model = wrapped(loaded, target_modules=["embed_tokens", "lm_head", "q_proj"])
    learn(model, vocabulary, steps=5)
    before = model(input_ids=QUESTIONS[:, None]).logits
    after = model.merge_and_unload()(input_ids=QUESTIONS[:, None]).logits
    assert (before - after).abs().max() > 1  # what the refusal is for
    for targets in (["model.embed_tokens"], ["q_proj", "lm_head"], r".*(q_proj|embed_tokens)"):
        with pytest.raises(ContractError, match="target_modules"):
            lora_config(vocabulary, target_modules=targets)
    lora_config(vocabulary, target_modules=r".*\.(q|v)_proj", modules_to_save=["norm"])
    with pytest.raises(ContractError, match="modules_to_save"):
        lora_config(vocabulary, modules_to_save=["model.embed_tokens"])


def test_tying_by_peft_helps_tied_models_only(make_language_model: Make) -> None:
    vocabulary = make_language_model(tied=False).processor.vocabulary
    config = {"modules_to_save": ["embed_tokens"], "ensure_weight_tying": True}
    assert [fault.field for fault in adapter_faults(config, vocabulary)] == ["trainable_token_indices of lm_head"]


@pytest.fixture
def adapter(base: Callable[..., Path], tmp_path: Path) -> Path:
    """An adapter of ours on `base`, untrained."""
    loaded = load_checkpoint(folder := base(), check_codec=False)
    return save_adapter(wrapped(loaded, folder), loaded, tmp_path / "adapter")


def point_to(adapter: Path, base: object) -> None:
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "base_model_name_or_path": base and str(base)}))


def test_another_base_is_refused(adapter: Path, base: Callable[..., Path], make_toy_codec: Any, tmp_path: Path) -> None:
    load_checkpoint(adapter, check_codec=False)
    # the same ids and shapes, grown for another codec: only the contract can tell
    point_to(adapter, base("other", codec=make_toy_codec(fingerprint="toy-codec-0002")))
    with pytest.raises(ContractError, match="audio_vocabulary: trained on vocabulary"):
        load_checkpoint(adapter, check_codec=False)
    for wrong, message in ((None, "names no base"), (tmp_path / "gone", "no such folder"), (adapter, "adapter itself")):
        point_to(adapter, wrong)
        with pytest.raises(ContractError, match=f"{message}.*base_model_name_or_path"):
            load_checkpoint(adapter, check_codec=False)


def test_weights_without_the_trained_rows_are_refused(adapter: Path) -> None:
    path = adapter / "adapter_model.safetensors"
    tensors = load_file(path)
    rows = next(name for name in tensors if "token_adapter" in name)
    for wrong, message in (
        ({**tensors, rows: tensors[rows][:-1]}, "65 trained rows of embed_tokens, but adapter_config.json names 66"),
        ({name: value for name, value in tensors.items() if name != rows}, "no trained rows of embed_tokens"),
    ):
        save_file(wrong, path)
        with pytest.raises(ContractError, match=message):
            load_checkpoint(adapter, check_codec=False)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ContractError, match="cannot be read"):
        load_checkpoint(adapter, check_codec=False)
    path.unlink()
    with pytest.raises(ContractError, match="holds no weights"):
        load_checkpoint(adapter, check_codec=False)


def test_a_base_in_half_precision_stays_so(base: Callable[..., Path]) -> None:
    loaded = load_checkpoint(base(), check_codec=False, dtype=torch.bfloat16)
    model = wrapped(loaded)
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
    assert learn(model, loaded.processor.vocabulary) < 0.5
    assert {p.dtype for p in merge(model).parameters()} == {torch.bfloat16} and is_tied(loaded.model)


def test_without_peft_it_says_what_to_install(
    language_model: LoadedCheckpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ContractError, match="pip install 'peft"):
        lora_config(language_model.processor.vocabulary)
