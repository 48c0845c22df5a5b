"""Vocabulary surgery: what changes, what must not, and what is refused."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from alm.checkpoint import LoadedCheckpoint, load_checkpoint, save_checkpoint
from alm.growing import grow_vocabulary
from alm.prompts import CHAT_TEMPLATE
from alm.vocabulary import AudioVocabulary, ContractError


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("spare", [0, 20, 500])
def test_growing_keeps_the_old_and_adds_the_new(
    make_text_model: Any, make_toy_codec: Any, tied: bool, spare: int
) -> None:
    model, tokenizer = make_text_model(tied=tied, spare_rows=spare)
    text_ids, rows = len(tokenizer), model.config.vocab_size
    layers = [model.get_input_embeddings(), *([] if tied else [model.get_output_embeddings()])]
    old = [layer.weight.detach().clone()[:text_ids] for layer in layers]
    vocabulary = grow_vocabulary(model, tokenizer, make_toy_codec(2, 50))

    assert (vocabulary.start_id, vocabulary.end_id, vocabulary.placeholder_id) == (text_ids, text_ids + 1, text_ids + 2)
    ids = tokenizer.convert_tokens_to_ids(vocabulary.tokens())
    assert ids == list(range(text_ids + 3, text_ids + 103))
    assert model.config.vocab_size % 64 == 0 or model.config.vocab_size == rows
    assert model.config.vocab_size >= max(rows, text_ids + 103)
    assert model.config.vocab_size < max(rows + 1, text_ids + 103 + 64)
    layers = [model.get_input_embeddings(), *([] if tied else [model.get_output_embeddings()])]
    assert (model.get_output_embeddings().weight is model.get_input_embeddings().weight) == tied
    for layer, before in zip(layers, old, strict=True):
        assert torch.equal(layer.weight[:text_ids], before)  # every bit
        new = layer.weight[text_ids + 3 : text_ids + 103].float()
        torch.testing.assert_close(new.mean(0), before.mean(0), atol=1e-6, rtol=1e-4)
        torch.testing.assert_close(new.std(0), before.std(0), rtol=0.02, atol=0)
        torch.testing.assert_close(
            layer.weight[text_ids + 103 :], before.mean(0).expand(len(layer.weight) - text_ids - 103, -1)
        )
    stop, pad = tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"])
    assert model.generation_config.eos_token_id == [stop] and model.generation_config.pad_token_id == pad != stop


def test_near_codes_get_near_rows(make_text_model: Any, toy_codec: Any) -> None:
    model, tokenizer = make_text_model()
    vocabulary = grow_vocabulary(model, tokenizer, toy_codec)
    rows = model.get_input_embeddings().weight[vocabulary.first_id :][:64].detach()
    upper = torch.triu_indices(64, 64, 1)
    near = torch.cdist(*[torch.from_numpy(toy_codec.codebook_vectors())] * 2)[*upper]
    got = torch.cdist(rows, rows)[*upper]
    assert np.corrcoef(near, got)[0, 1] > 0.6
    other, tokenizer = make_text_model()
    grow_vocabulary(other, tokenizer, toy_codec, "gaussian")
    rows = other.get_input_embeddings().weight[vocabulary.first_id :][:64].detach()
    assert abs(np.corrcoef(near, torch.cdist(rows, rows)[*upper])[0, 1]) < 0.2


def test_initialisations_are_seeded(make_text_model: Any, toy_codec: Any) -> None:
    def rows(how: Any, seed: int) -> torch.Tensor:
        model, tokenizer = make_text_model()
        first = grow_vocabulary(model, tokenizer, toy_codec, how, seed).first_id
        return model.get_input_embeddings().weight[first : first + 64].detach()

    for how in ("codebook", "gaussian", "mean"):
        assert torch.equal(rows(how, 0), rows(how, 0)) and not torch.equal(rows(how, 0), rows(how, 1))
    assert rows("mean", 0).std(0).max() < 0.05 * rows("gaussian", 0).std(0).min()
    with pytest.raises(ValueError, match="got 'zeros'"):
        rows("zeros", 0)
    toy_codec.codebook_vectors = lambda: None
    with pytest.raises(ValueError, match="--initialisation gaussian"):
        rows("codebook", 0)


def test_text_behaves_as_before(make_text_model: Any, toy_codec: Any) -> None:
    model, tokenizer = make_text_model()
    ids = torch.tensor([tokenizer.encode("What sound is heard? a dog")])
    before = model(ids).logits[..., : len(tokenizer)].detach()
    text_ids = len(tokenizer)
    grow_vocabulary(model, tokenizer, toy_codec)
    assert tokenizer.encode("What sound is heard? a dog") == ids[0].tolist()
    torch.testing.assert_close(model(ids).logits[..., :text_ids], before)


def test_growing_is_refused(make_text_model: Any, toy_codec: Any) -> None:
    model, tokenizer = make_text_model()
    grow_vocabulary(model, tokenizer, toy_codec)
    with pytest.raises(ContractError, match="grown once"):
        grow_vocabulary(model, tokenizer, toy_codec)
    from transformers import Qwen2Tokenizer

    with pytest.raises(ContractError, match=r"lacks <\|im_start\|>, <\|im_end\|>"):
        grow_vocabulary(model, Qwen2Tokenizer(), toy_codec)


STOCK = """
import sys
sys.modules["alm"] = sys.modules["codec"] = None  # any import of ours fails
import json, pathlib, torch
from transformers import AutoModelForCausalLM, AutoTokenizer
for folder in map(pathlib.Path, sys.argv[1:]):
    known = json.loads((folder / "expected.json").read_text())
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    assert type(model).__name__ == "Qwen3ForCausalLM" and model.config.audio_vocabulary["hash"] == known["hash"]
    text = tokenizer.apply_chat_template([{"role": "user", "content": [{"type": "audio"}]}], tokenize=False)
    text = text.replace("<|audio_pad|>", "".join(f"<|audio_0_{c}|>" for c in range(9)))
    assert tokenizer.encode(text) == known["ids"]
    torch.save(model(torch.tensor([known["ids"]])).logits, folder / "logits.pt")
"""


def test_stock_transformers_loads_it(
    make_language_model: Callable[..., LoadedCheckpoint], toy_codec: Any, tmp_path: Path
) -> None:
    originals = {tmp_path / name: make_language_model(tied=name == "tied") for name in ("tied", "untied")}
    item = {"type": "audio", "codes": np.arange(9)[None]}
    for folder, (model, processor) in originals.items():
        save_checkpoint(model, processor, folder)
        assert not list(folder.glob("*.bin")) and (folder / "model.safetensors").is_file()
        ids = processor.encode_messages([{"role": "user", "content": [item]}])
        (folder / "expected.json").write_text(json.dumps({"ids": ids, "hash": processor.vocabulary.hash}))
    subprocess.run([sys.executable, "-c", STOCK, *map(str, originals)], check=True)
    for folder, (model, _) in originals.items():
        inputs = torch.tensor([json.loads((folder / "expected.json").read_text())["ids"]])
        stock = torch.load(folder / "logits.pt", weights_only=True)
        torch.testing.assert_close(stock, model(inputs).logits)
        loaded = load_checkpoint(folder, codec=toy_codec).model
        assert torch.equal(loaded(inputs).logits, stock)
        assert (loaded.lm_head.weight is loaded.model.embed_tokens.weight) == (folder.name == "tied")


def edit(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


def test_mismatches_stop_with_both_sides(
    language_model: LoadedCheckpoint, make_toy_codec: Any, toy_codec: Any, tmp_path: Path
) -> None:
    def fresh() -> Path:
        save_checkpoint(*language_model, tmp_path)
        return tmp_path

    with pytest.raises(ContractError, match=r"other-0002.*toy-codec-0001"):
        load_checkpoint(fresh(), codec=make_toy_codec(fingerprint="other-0002"))
    edit(fresh() / "config.json", lambda c: c["audio_vocabulary"].update(frame_rate=25.0))
    with pytest.raises(ContractError, match="its fields give"):
        load_checkpoint(tmp_path, codec=toy_codec)

    def shifted(config: dict[str, Any]) -> None:
        fields = {**config["audio_vocabulary"], "first_id": config["audio_vocabulary"]["first_id"] + 1}
        fields.pop("hash")
        config["audio_vocabulary"] = AudioVocabulary(**fields).to_dict()

    edit(fresh() / "config.json", shifted)
    with pytest.raises(ContractError, match="files of two checkpoints"):
        load_checkpoint(tmp_path, codec=toy_codec)
    edit(tmp_path / "processor_config.json", shifted)
    with pytest.raises(ContractError, match=r"<\|audio_0_0\|> the id \d+, the contract \d+"):
        load_checkpoint(tmp_path, codec=toy_codec)
    edit(fresh() / "config.json", lambda c: c.pop("audio_vocabulary"))
    with pytest.raises(ContractError, match=r"extend_vocabulary\.py"):
        load_checkpoint(tmp_path, codec=toy_codec)
    (fresh() / "processor_config.json").unlink()
    with pytest.raises(ContractError, match=r"processor_config\.json is missing"):
        load_checkpoint(tmp_path, codec=toy_codec)
    with pytest.raises(ContractError, match="no such folder"):
        load_checkpoint(tmp_path / "none")
    with pytest.raises(ContractError, match="owner/name: no such folder, and from the Hub"):
        load_checkpoint("owner/name")


def test_rows_and_template_are_verified(language_model: LoadedCheckpoint, toy_codec: Any, tmp_path: Path) -> None:
    model, processor = language_model
    model.resize_token_embeddings(model.config.vocab_size - 64)
    save_checkpoint(model, processor, tmp_path)
    with pytest.raises(ContractError, match=r"embedding has \d+ rows, the contract \d+"):
        load_checkpoint(tmp_path, codec=toy_codec)
    assert processor.chat_template == CHAT_TEMPLATE


def test_half_precision_keeps_the_old_rows(make_text_model: Any, toy_codec: Any) -> None:
    model, tokenizer = make_text_model()
    model = model.to(torch.bfloat16)
    text_ids = len(tokenizer)
    before = model.get_input_embeddings().weight.detach().clone()[:text_ids]
    grow_vocabulary(model, tokenizer, toy_codec)
    weight = model.get_input_embeddings().weight
    assert weight.dtype == torch.bfloat16 and torch.equal(weight[:text_ids], before)
