"""Growing a folder file by file: the same bits as in memory, a plan that is true, and what is refused."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen3Config, Qwen3ForCausalLM

from alm.checkpoint import load_checkpoint, save_checkpoint
from alm.doctor import examine
from alm.growing import RowMap, grow_vocabulary
from alm.growing_folder import grow_checkpoint
from alm.growth_plan import plan_growth
from alm.processing import AudioLanguageProcessor
from alm.vocabulary import ContractError

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"


def tensors_of(folder: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for path in folder.glob("*.safetensors") for name, tensor in load_file(path).items()}


def equal_bits(one: torch.Tensor, other: torch.Tensor) -> bool:
    same = one.dtype == other.dtype and one.shape == other.shape
    return same and torch.equal(one.contiguous().view(torch.uint8), other.contiguous().view(torch.uint8))


@pytest.fixture
def save_text_model(make_text_model: Any, tmp_path: Path) -> Any:
    """A function that writes a text-only checkpoint, in one file or in many."""

    def save(max_shard_size: str = "5GB", dtype: torch.dtype = torch.float32, **options: Any) -> Path:
        model, tokenizer = make_text_model(**options)
        folder = tmp_path / "text"
        model.to(dtype).save_pretrained(folder, max_shard_size=max_shard_size)
        tokenizer.save_pretrained(folder)
        return folder

    return save


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("max_shard_size", ["5GB", "30KB"])
@pytest.mark.parametrize("books", [1, 2])
@pytest.mark.parametrize("spare_rows", [20, 500])
@pytest.mark.parametrize(
    ("dtype", "to"),
    [(torch.float32, None), (torch.bfloat16, None), (torch.float32, torch.bfloat16), (torch.bfloat16, torch.float32)],
)
def test_the_folder_way_gives_the_bits_of_the_memory_way(
    save_text_model: Any,
    make_toy_codec: Any,
    tmp_path: Path,
    tied: bool,
    max_shard_size: str,
    books: int,
    spare_rows: int,
    dtype: Any,
    to: Any,
) -> None:
    codec = make_toy_codec(books, 50)
    source = save_text_model(max_shard_size, dtype, tied=tied, spare_rows=spare_rows)
    before = {path.name: path.read_bytes() for path in source.iterdir()}
    model, tokenizer = AutoModelForCausalLM.from_pretrained(source), AutoTokenizer.from_pretrained(source)
    vocabulary = grow_vocabulary(model.to(to or dtype), tokenizer, codec, seed=3)
    processor = AudioLanguageProcessor(tokenizer, vocabulary, model.config.max_position_embeddings)
    processor.codec = codec
    save_checkpoint(model, processor, tmp_path / "memory")

    plan = plan_growth(source, codec, to)
    assert grow_checkpoint(plan, tmp_path / "folder", codec, seed=3) == vocabulary
    ours, theirs = tensors_of(tmp_path / "folder"), tensors_of(tmp_path / "memory")
    assert ours.keys() == theirs.keys() and all(equal_bits(ours[name], theirs[name]) for name in ours)
    for path in (tmp_path / "memory").iterdir():
        if path.suffix not in (".safetensors",):
            assert (tmp_path / "folder" / path.name).read_bytes() == path.read_bytes(), path.name
    assert {path.name: path.read_bytes() for path in source.iterdir()} == before  # the source is only read

    assert plan.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert plan.bytes == sum(tensor.nbytes for tensor in ours.values())
    assert plan.rows == RowMap(plan.rows.text_ids, plan.rows.rows_before, 50 * books)
    assert (plan.rows.first_id, plan.rows.end, plan.rows.rows) == (vocabulary.first_id, vocabulary.end, vocabulary.rows)
    assert (plan.dtype, plan.tied) == (to or dtype, tied)
    assert (
        (len(plan.shards) > 1)
        == (max_shard_size == "30KB")
        == (tmp_path / "folder" / "model.safetensors.index.json").is_file()
    )
    if to is None:  # only files with a vocabulary matrix are touched
        assert [shard.copied for shard in plan.shards] == [
            not {EMBEDDING, HEAD} & shard.after.keys() for shard in plan.shards
        ]
        for shard in plan.shards:
            if shard.copied:
                assert (tmp_path / "folder" / shard.target).read_bytes() == (source / shard.source).read_bytes()
    assert not list(examine(tmp_path / "folder"))
    loaded = load_checkpoint(tmp_path / "folder", codec=codec)
    assert (loaded.model.lm_head.weight is loaded.model.model.embed_tokens.weight) == tied


def test_initialisations_are_those_of_the_memory_way(save_text_model: Any, toy_codec: Any, tmp_path: Path) -> None:
    source = save_text_model(tied=False)
    for how in ("codebook", "gaussian", "mean"):
        model, tokenizer = AutoModelForCausalLM.from_pretrained(source), AutoTokenizer.from_pretrained(source)
        grow_vocabulary(model, tokenizer, toy_codec, how)
        grow_checkpoint(plan_growth(source, toy_codec), tmp_path / how, toy_codec, how)
        grown = tensors_of(tmp_path / how)
        assert torch.equal(grown[EMBEDDING], model.model.embed_tokens.weight)
        assert torch.equal(grown[HEAD], model.lm_head.weight)


def split(folder: Path, files: dict[str, list[str]]) -> None:
    """Lay out the weights of a folder anew, in the given files."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    for name, kept in files.items():
        save_file({key: tensors[key] for key in kept}, folder / name, metadata={"format": "pt"})
    weight_map = {key: name for name, kept in files.items() for key in kept}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def store_head(folder: Path, change: float = 0.0) -> list[str]:
    """Store the tied embedding a second time, as the published Qwen3-0.6B and 1.7B do; returns all names."""
    tensors = load_file(folder / "model.safetensors")
    tensors[HEAD] = tensors[EMBEDDING] + change
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return sorted(tensors)


@pytest.mark.parametrize("apart", [True, False])
def test_a_tied_head_that_is_stored_too_is_left_out(
    save_text_model: Any, toy_codec: Any, tmp_path: Path, apart: bool
) -> None:
    source = save_text_model()
    plain = tmp_path / "plain"
    shutil.copytree(source, plain)
    names = store_head(source)
    if apart:  # Qwen3-1.7B: the second of two files holds nothing else
        split(
            source,
            {
                "model-00001-of-00002.safetensors": [n for n in names if n != HEAD],
                "model-00002-of-00002.safetensors": [HEAD],
            },
        )
    for folder in (source, plain):
        grow_checkpoint(plan_growth(folder, toy_codec), tmp_path / f"{folder.name}_grown", toy_codec)
    assert sorted(path.name for path in (tmp_path / "text_grown").iterdir()) == sorted(
        path.name for path in (tmp_path / "plain_grown").iterdir()
    )
    ours, theirs = tensors_of(tmp_path / "text_grown"), tensors_of(tmp_path / "plain_grown")
    assert ours.keys() == theirs.keys() and all(equal_bits(ours[name], theirs[name]) for name in ours)
    assert not list(examine(tmp_path / "text_grown"))


def test_a_tied_head_of_other_values_is_refused(save_text_model: Any, toy_codec: Any, tmp_path: Path) -> None:
    source = save_text_model()
    store_head(source, change=1.0)
    with pytest.raises(ContractError, match=r"lm_head\.weight differs from model\.embed_tokens"):
        grow_checkpoint(plan_growth(source, toy_codec), tmp_path / "grown", toy_codec)
    assert not (tmp_path / "grown").exists()


def without_codebook(codec: Any) -> Any:
    codec.codebook_vectors = lambda: None
    return codec


def edit_config(folder: Path, **entries: Any) -> None:
    data = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(data | entries))


def drop(folder: Path, name: str) -> None:
    tensors = load_file(folder / "model.safetensors")
    del tensors[name]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


REFUSED: dict[str, tuple[Any, str]] = {
    "pickles": (pickled, r"pickles \(\.bin\).*safetensors are accepted"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "does not hold all its weights"),
    "no tokenizer": (lambda f: (f / "tokenizer.json").unlink(), "holds no tokenizer"),
    "no config": (lambda f: (f / "config.json").unlink(), "no language model can be read"),
    "no language model": (
        lambda f: (f / "config.json").write_text('{"model_type": "mimi"}'),
        "a mimi is no language model",
    ),
    "a broken config": (lambda f: edit_config(f, vocab_size="many"), "no language model can be read"),
    "a layer lost": (
        lambda f: drop(f, "model.layers.1.mlp.up_proj.weight"),
        r"model\.layers\.1\.mlp\.up_proj\.weight is missing",
    ),
    "no head": (lambda f: drop(f, HEAD), r"lm_head\.weight is missing"),
    "more rows than weights": (
        lambda f: edit_config(f, vocab_size=1_000),
        r"\(360, 32\) instead of \(1000, 32\) and 1 more",
    ),
    "quantised": (lambda f: edit_config(f, quantization_config={"quant_method": "fp8"}), "quantised weights"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_grown_is_refused(save_text_model: Any, toy_codec: Any, tmp_path: Path, name: str) -> None:
    source = save_text_model(tied=False)
    change, message = REFUSED[name]
    change(source)
    with pytest.raises(ContractError, match=message):
        grow_checkpoint(plan_growth(source, toy_codec), tmp_path / "grown", toy_codec)
    assert not (tmp_path / "grown").exists()


def test_text_is_never_shrunk_and_nothing_grows_twice(save_text_model: Any, toy_codec: Any, tmp_path: Path) -> None:
    source = save_text_model()
    grow_checkpoint(plan_growth(source, toy_codec), tmp_path / "grown", toy_codec)
    with pytest.raises(ContractError, match="grown once"):
        plan_growth(tmp_path / "grown", toy_codec)
    with pytest.raises(FileExistsError):
        grow_checkpoint(plan_growth(source, toy_codec), tmp_path / "grown", toy_codec)
    with pytest.raises(ContractError, match="--initialisation gaussian"):
        grow_checkpoint(plan_growth(source, toy_codec), tmp_path / "other", without_codebook(toy_codec))
    small = make_smaller(source)
    with pytest.raises(ContractError, match="only 300 rows: text tokens would be lost"):
        plan_growth(small, toy_codec)


def make_smaller(folder: Path) -> Path:
    tensors = load_file(folder / "model.safetensors")
    tensors[EMBEDDING] = tensors[EMBEDDING][:300].clone()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    edit_config(folder, vocab_size=300)
    return folder


QWEN3 = yaml.safe_load((Path(__file__).parents[2] / "benchmarks" / "qwen3.yaml").read_text(encoding="utf-8"))


def write_qwen3_config(size: str, folder: Path) -> Qwen3Config:
    shape = {name: value for name, value in QWEN3[size].items() if name != "stored"}
    config = Qwen3Config(vocab_size=151_936, num_key_value_heads=8, head_dim=128, dtype="bfloat16", **shape)
    config.save_pretrained(folder)
    return config


@pytest.mark.parametrize("size", QWEN3)
def test_every_qwen3_is_planned_from_its_config_alone(size: str, make_toy_codec: Any, tmp_path: Path) -> None:
    config = write_qwen3_config(size, tmp_path)
    width, tied = QWEN3[size]["hidden_size"], size != "8B"
    assert QWEN3[size]["tie_word_embeddings"] == tied
    stored_twice = size in ("0.6B", "1.7B")
    parameters = QWEN3[size]["stored"] - stored_twice * 151_936 * width
    with torch.device("meta"):
        model = Qwen3ForCausalLM(config)
    assert sum(p.numel() for p in model.parameters()) == parameters  # the shapes here are the published ones
    plan = plan_growth(tmp_path, make_toy_codec(1, 16_384))
    assert (plan.rows.text_ids, plan.rows.first_id, plan.rows.end, plan.rows.rows) == (
        151_669,
        151_672,
        168_056,
        168_064,
    )
    matrices = 1 if tied else 2
    assert plan.parameters == parameters + matrices * (168_064 - 151_936) * width
    assert plan.bytes == 2 * plan.parameters
    assert (plan.tied, plan.dtype, plan.weights_here, plan.tokenizer_here) == (tied, torch.bfloat16, False, False)
    model.resize_token_embeddings(168_064, mean_resizing=False)
    assert sum(p.numel() for p in model.parameters()) == plan.parameters
    assert plan.memory < 7.5e9  # the largest file of up to 5 GB, not the 16.6 GB of all
    several = plan_growth(tmp_path, make_toy_codec(8, 1_024))
    assert several.rows == RowMap(151_669, 151_936, 8_192) and several.rows.rows == 159_872
    with pytest.raises(ContractError, match="does not hold all its weights"):
        grow_checkpoint(plan, tmp_path / "grown", make_toy_codec(1, 16_384))


def test_a_plan_without_weights_follows_the_index(make_toy_codec: Any, tmp_path: Path) -> None:
    """The five files of the published Qwen3-8B: the embedding opens the first, the head is alone in the last."""
    write_qwen3_config("8B", tmp_path)
    with torch.device("meta"):
        names = list(Qwen3ForCausalLM(Qwen3Config.from_pretrained(tmp_path)).state_dict())
    parts = [f"model-{n}-of-00005.safetensors" for n in ("00001", "00002", "00003", "00004", "00005")]
    weight_map = {name: parts[-1] if name == HEAD else parts[n * 4 // len(names)] for n, name in enumerate(names)}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    plan = plan_growth(tmp_path, make_toy_codec(1, 16_384))
    assert [shard.copied for shard in plan.shards] == [False, True, True, True, False]
    del weight_map[names[5]]
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    with pytest.raises(ContractError, match=f"lacks {names[5]}"):
        plan_growth(tmp_path, make_toy_codec(1, 16_384))
