"""The doctor: every single thing that can be wrong in a folder is named, at load too, with its cure."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from alm import doctor
from alm.checkpoint import LoadedCheckpoint, load_checkpoint, save_checkpoint
from alm.contract import tokenizer_hash
from alm.vocabulary import AudioVocabulary, ContractError

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
Edit = Callable[[Path], None]


def in_json(name: str, change: Callable[[dict[str, Any]], Any]) -> Edit:
    def edit(folder: Path) -> None:
        data = json.loads((folder / name).read_text(encoding="utf-8"))
        change(data)
        (folder / name).write_text(json.dumps(data), encoding="utf-8")

    return edit


def in_weights(change: Callable[[dict[str, torch.Tensor]], Any]) -> Edit:
    def edit(folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        change(tensors)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})

    return edit


def swap_tokens(first: str, second: str) -> Edit:
    def change(data: dict[str, Any]) -> None:
        added = {token["content"]: token for token in data["added_tokens"]}
        if first in added:
            added[first]["content"], added[second]["content"] = second, first
        else:
            vocabulary = data["model"]["vocab"]
            vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]

    return in_json("tokenizer.json", change)


def swap_merges(data: dict[str, Any]) -> None:
    merges = data["model"]["merges"]
    merges[0], merges[1] = merges[1], merges[0]


def in_both_contracts(**changes: Any) -> Edit:
    """A contract edited with care: in both files, its hash made anew."""

    def change(data: dict[str, Any]) -> None:
        fields = {**data["audio_vocabulary"], **changes}
        fields.pop("hash")
        data["audio_vocabulary"] = AudioVocabulary(**fields).to_dict()

    def edit(folder: Path) -> None:
        in_json("config.json", change)(folder)
        in_json("processor_config.json", change)(folder)

    return edit


def pad_is_stop(folder: Path) -> None:
    stop = json.loads((folder / "config.json").read_text())["eos_token_id"]
    in_both_contracts(pad_id=stop)(folder)


def removed(name: str) -> Edit:
    return lambda folder: (folder / name).unlink()


def rewrite_template(folder: Path) -> None:
    path = folder / "chat_template.jinja"
    path.write_text(path.read_text(encoding="utf-8") + " ", encoding="utf-8")


def set_generation(**entries: Any) -> Edit:
    return in_json("generation_config.json", lambda data: data.update(entries))


def set_config(**entries: Any) -> Edit:
    return in_json("config.json", lambda data: data.update(entries))


def add_head(tensors: dict[str, torch.Tensor]) -> None:
    tensors[HEAD] = tensors[EMBEDDING].clone()


def drop_row(tensors: dict[str, torch.Tensor]) -> None:
    tensors[EMBEDDING] = tensors[EMBEDDING][:-1].clone()


def drop_row_and_count(folder: Path) -> None:
    in_weights(drop_row)(folder)
    in_json("config.json", lambda data: data.update(vocab_size=data["vocab_size"] - 1))(folder)


CORRUPTIONS: dict[str, tuple[Edit, str]] = {
    "audio tokens swapped": (swap_tokens("<|audio_0_3|>", "<|audio_0_4|>"), r"tokenizer ids: .*audio_0_3.* and 1 more"),
    "start and end swapped": (swap_tokens("<|audio_start|>", "<|audio_end|>"), "tokenizer ids"),
    "text tokens swapped": (swap_tokens("a", "b"), "tokenizer_hash"),
    "merges swapped": (in_json("tokenizer.json", swap_merges), "tokenizer_hash"),
    "template edited": (rewrite_template, r"chat_template_hash: .*chat_template\.jinja"),
    "a row removed": (in_weights(drop_row), "rows of the embedding"),
    "a row removed and uncounted": (drop_row_and_count, r"config\.json vocab_size"),
    "more rows counted": (set_config(vocab_size=512), r"config\.json vocab_size"),
    "untied in the config": (set_config(tie_word_embeddings=False), "tie_word_embeddings"),
    "untied in the weights": (in_weights(add_head), "tie_word_embeddings"),
    "embedding lost": (in_weights(lambda t: t.pop(EMBEDDING)), r"model\.embed_tokens\.weight"),
    "a layer lost": (
        in_weights(lambda t: t.pop("model.layers.1.mlp.up_proj.weight")),
        r"model\.layers\.1\.mlp\.up_proj",
    ),
    "pad set to stop": (
        in_json("tokenizer_config.json", lambda d: d.update(pad_token="<|im_end|>")),
        "tokenizer pad_token: .*which is the stop token",
    ),
    "pad set to stop in the config": (
        in_json("config.json", lambda d: d.update(pad_token_id=d["eos_token_id"])),
        r"config\.json pad_token_id: .*which is the stop",
    ),
    "pad set to stop for generation": (
        in_json("generation_config.json", lambda d: d.update(pad_token_id=d["eos_token_id"][0])),
        r"generation_config\.json pad_token_id",
    ),
    "stop set to padding": (
        in_json("tokenizer_config.json", lambda d: d.update(eos_token="<|endoftext|>")),
        "tokenizer eos_token",
    ),
    "stop removed from the config": (set_config(eos_token_id=None), r"config\.json eos_token_id"),
    "stop removed for generation": (set_generation(eos_token_id=None), r"generation_config\.json eos_token_id"),
    "a second stop": (
        in_json("generation_config.json", lambda d: d["eos_token_id"].append(d["pad_token_id"])),
        r"generation_config\.json eos_token_id",
    ),
    "codec named in the contract": (in_both_contracts(codec_fingerprint="other-0002"), r"other-0002"),
    "frame rate": (
        in_json("config.json", lambda d: d["audio_vocabulary"].update(frame_rate=25.0)),
        "audio_vocabulary: stored vocabulary hash",
    ),
    "a field of another version": (
        in_json("config.json", lambda d: d["audio_vocabulary"].pop("stop_id")),
        "lacks stop_id",
    ),
    "contract shifted": (in_both_contracts(first_id=344), "tokenizer ids"),
    "contract of another pad": (in_both_contracts(pad_id=3), "pad_token"),
    "contract of pad = stop": (pad_is_stop, "pad_id: the padding is the stop token"),
    "contract of the processor": (
        in_json("processor_config.json", lambda d: d.pop("audio_vocabulary")),
        "there is no audio vocabulary",
    ),
    **{f"{name} missing": (removed(name), rf"{name} is missing") for name in doctor.FILES},
}


@pytest.fixture
def folder(language_model: LoadedCheckpoint, tmp_path: Path) -> Path:
    save_checkpoint(*language_model, tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_every_corruption_is_caught_at_load_and_by_the_doctor(
    folder: Path, toy_codec: Any, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    load_checkpoint(folder, codec=toy_codec)  # the folder as it was is well
    edit, field = CORRUPTIONS[name]
    edit(folder)
    with pytest.raises(ContractError, match=f"(?s){field}") as caught:
        load_checkpoint(folder, codec=toy_codec)
    assert re.search(r"Cure: \w|load the codec", str(caught.value))  # every message says what to do
    if name not in (
        "a layer lost",
        "codec named in the contract",
    ):  # seen only once the weights, or a codec, are loaded
        assert doctor.main([str(folder), "--no_codec"]) == 1
        assert "cure: " in capsys.readouterr().out


def test_a_swapped_codec_is_caught(make_language_model: Any, tmp_path: Path, make_codecs: Any) -> None:
    """The codec saved in the folder is read, and its weights are its identity."""
    first, second = make_codecs
    save_checkpoint(*make_language_model(codec=first), tmp_path)
    assert doctor.main([str(tmp_path)]) == 0
    second.save_pretrained(tmp_path / "codec")
    with pytest.raises(ContractError, match=f"{second.fingerprint}.*{first.fingerprint}"):
        load_checkpoint(tmp_path)
    assert doctor.main([str(tmp_path)]) == 1


@pytest.fixture
def make_codecs() -> Iterator[Any]:
    from codec.configuration import EntangleCodecConfig
    from codec.entangle import EntangleCodec
    from codec.modeling import EntangleCodecModel

    made = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        config = EntangleCodecConfig(
            hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, codebook_size=64
        )
        made.append(EntangleCodec(EntangleCodecModel(config)))
    yield tuple(made)


def test_a_well_folder_passes_whole(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor.main([str(folder), "--no_codec", "--weights"]) == 0
    out = capsys.readouterr().out
    assert "✗" not in out and "no fault" in out and "values of new rows" in out
    assert doctor.main([str(folder)]) == 1  # saved with the toy codec, which has no files
    assert "codec_reference: the checkpoint names no codec" in capsys.readouterr().out
    assert doctor.main([str(folder / "nowhere")]) == 1
    assert "no such folder" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda rows, start, end: rows[start + 5].fill_(float("nan")), "not finite"),
        (lambda rows, start, end: rows[start:end].copy_(rows[start].expand(end - start, -1)), "same row"),
        (lambda rows, start, end: rows[end:].fill_(9.0), "larger than any text row"),
    ],
)
def test_values_of_rows(folder: Path, change: Any, found: str, capsys: pytest.CaptureFixture[str]) -> None:
    vocabulary = AudioVocabulary.from_dict(json.loads((folder / "config.json").read_text())["audio_vocabulary"])
    in_weights(lambda t: change(t[EMBEDDING], vocabulary.start_id, vocabulary.end))(folder)
    assert doctor.main([str(folder), "--no_codec", "--weights"]) == 1
    assert found in capsys.readouterr().out


def test_the_tokenizers_hash_survives_saving(language_model: LoadedCheckpoint, folder: Path) -> None:
    from transformers import AutoTokenizer

    known = language_model.processor.vocabulary.tokenizer_hash
    assert (
        tokenizer_hash(AutoTokenizer.from_pretrained(folder))
        == known
        == tokenizer_hash(language_model.processor.tokenizer)
    )


def test_all_faults_are_told_at_once(folder: Path, toy_codec: Any) -> None:
    rewrite_template(folder)
    set_generation(eos_token_id=None)(folder)
    in_weights(drop_row)(folder)
    with pytest.raises(
        ContractError, match=r"(?s)chat_template_hash.*generation_config\.json eos.*rows of the embedding"
    ):
        load_checkpoint(folder, codec=toy_codec)
