"""What growing a checkpoint's folder will do, known before a byte is written: rows, files, bytes, memory.

Read from `config.json` and the headers of the weights; where the weights are not here, from a model on the meta device, so that 8B can be
planned on a laptop. `alm.growing_folder` carries a plan out.
"""

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from huggingface_hub import split_torch_state_dict_into_shards
from huggingface_hub.errors import StrictDataclassError
from safetensors import safe_open
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig

from alm.checkpoint_files import EMBEDDING, HEAD, CheckpointFiles
from alm.contract import RESTORE
from alm.growing import RowMap, check_growable, end_of
from alm.vocabulary import ContractError
from codec.base import Codec

WEIGHTS = "model.safetensors"
QWEN3_ROWS, QWEN3_TEXT_IDS = 151_936, 151_669
"""Of every Qwen3 up to 8B: rows in `config.json`, ids in the tokenizer."""
Tensors = dict[str, Tensor]
"""By name, on the meta device: shapes and types without values."""


class Shard(NamedTuple):
    """One file of weights, `source` before and `target` after growing."""

    source: str
    target: str
    before: Tensors
    after: Tensors

    @property
    def changed(self) -> Tensors:
        """Those of `after` that hold other bytes than before: grown matrices (even where no row is added) and other types."""
        return {
            name: new
            for name, new in self.after.items()
            if name in (EMBEDDING, HEAD) or new.dtype != self.before[name].dtype
        }

    @property
    def copied(self) -> bool:
        """Whether the file stays as it is."""
        return not self.changed and self.before.keys() == self.after.keys()

    @property
    def memory(self) -> int:
        """Bytes it takes to rewrite: the file, mapped, and what changes."""
        return 0 if self.copied else total_bytes(self.before) + total_bytes(self.changed)


@dataclass(frozen=True)
class GrowthPlan:
    """A plan for `source`. `weights_here` and `tokenizer_here` say what it rests on: files, or what is known of Qwen3."""

    source: Path
    rows: RowMap
    tied: bool
    dtype: torch.dtype
    shards: list[Shard]
    weights_here: bool
    tokenizer_here: bool

    @property
    def width(self) -> int:
        """`D` of the embedding."""
        return int(next(shard.after[EMBEDDING].shape[1] for shard in self.shards if EMBEDDING in shard.after))

    @property
    def parameters(self) -> int:
        """Of the grown model, a tied matrix counted once."""
        return sum(tensor.numel() for shard in self.shards for tensor in shard.after.values())

    @property
    def bytes(self) -> int:
        """Of all weights written."""
        return sum(total_bytes(shard.after) for shard in self.shards)

    @property
    def work(self) -> int:
        """Bytes for making the new rows: up to four float32 copies of them at a time."""
        return 4 * 4 * self.rows.size * self.width

    @property
    def memory(self) -> int:
        """Bytes of memory at the worst moment, beside Python and its libraries."""
        return max(shard.memory for shard in self.shards) + self.work


def plan_growth(folder: Path, codec: Codec, dtype: torch.dtype | None = None) -> GrowthPlan:
    """Plan growing the checkpoint in `folder` by the codec's tokens, its weights in another `dtype` where one is given.

    Needs `config.json`; weights and tokenizer are read where they are there. Raises `ContractError` on anything but a text-only Qwen-like
    checkpoint in safetensors whose config, weights and tokenizer fit together.
    """
    files = CheckpointFiles(folder)
    config = _config(folder)
    expected = _expected(config)
    stored = _stored(files)
    if stored is not None:
        _check_stored({name: tensor for shard in stored.values() for name, tensor in shard.items()}, expected, folder)
    text_ids = _text_ids(files, config)
    row_map = RowMap(text_ids or QWEN3_TEXT_IDS, config.vocab_size, codec.num_codebooks * codec.codebook_size)
    shards = [
        (name, before, _grown(before, expected, row_map.rows, dtype))
        for name, before in (stored or _assumed(files, expected)).items()
    ]
    shards = [shard for shard in shards if shard[2]]  # a file that held nothing but the copy of a tied head goes
    targets = (
        [WEIGHTS]
        if len(shards) == 1
        else [f"model-{n + 1:05d}-of-{len(shards):05d}.safetensors" for n in range(len(shards))]
    )
    made = [Shard(name, target, before, after) for target, (name, before, after) in zip(targets, shards, strict=True)]
    kind = next(shard.after[EMBEDDING].dtype for shard in made if EMBEDDING in shard.after)
    return GrowthPlan(folder, row_map, HEAD not in expected, kind, made, stored is not None, text_ids is not None)


def total_bytes(tensors: Tensors) -> int:
    """Bytes of all tensors."""
    return sum(tensor.nbytes for tensor in tensors.values())


def _config(folder: Path) -> PreTrainedConfig:
    try:
        config = AutoConfig.from_pretrained(folder)
    except (OSError, ValueError, StrictDataclassError) as error:
        raise ContractError(f"{folder}: no language model can be read: {str(error).splitlines()[0]}") from error
    if getattr(config, "quantization_config", None) is not None:
        raise ContractError(
            f"{folder} holds quantised weights; grow the model that they were made from, and quantise the result"
        )
    return config


def _expected(config: PreTrainedConfig) -> Tensors:
    """The tensors that a model of this configuration needs."""
    try:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, dtype=config.dtype or torch.float32)
    except ValueError as error:
        raise ContractError(
            f"a {config.model_type} is no language model of Transformers; start from a Qwen3"
        ) from error
    tensors: Tensors = model.state_dict()
    if config.tie_word_embeddings:
        tensors.pop(HEAD, None)
    if EMBEDDING not in tensors:
        raise ContractError(f"a {config.model_type} has no {EMBEDDING}; start from a Qwen3 language model")
    return tensors


def _stored(files: CheckpointFiles) -> dict[str, Tensors] | None:
    """The tensors of each file, from the headers; None where not all files are here."""
    names = sorted(set(files.index.values()) or {WEIGHTS})
    if not all((files.folder / name).is_file() for name in names):
        if list(files.folder.glob("*.bin")):
            raise ContractError(
                f"{files.folder} holds its weights as pickles (.bin), which can run any code when they are read; safetensors are accepted. "
                "Write them with a Transformers that you trust: AutoModelForCausalLM.from_pretrained(…).save_pretrained(…)"
            )
        return None
    found = {}
    for name in names:
        with safe_open(files.folder / name, "pt") as file:
            # tensors are mapped, not read
            found[name] = {key: torch.empty_like(file.get_tensor(key), device="meta") for key in sorted(file.keys())}
    return found


def _assumed(files: CheckpointFiles, expected: Tensors) -> dict[str, Tensors]:
    """The expected tensors in the files of the index; without one, in files of up to 5 GB, as Qwen's are."""
    index = files.index or split_torch_state_dict_into_shards(expected, max_shard_size="5GB").tensor_to_filename
    shards: dict[str, Tensors] = defaultdict(dict)
    for name in expected:
        if name not in index:
            raise ContractError(f"{files.folder}: the index of the weights lacks {name}. Cure: {RESTORE}")
        shards[index[name]][name] = expected[name]
    return {name: shards[name] for name in sorted(shards)}


def _check_stored(stored: Tensors, expected: Tensors, folder: Path) -> None:
    wrong = [
        f"{name} is {'missing' if name not in stored else f'{tuple(stored[name].shape)} instead of {tuple(tensor.shape)}'}"
        for name, tensor in expected.items()
        if name not in stored or stored[name].shape != tensor.shape
    ]
    if wrong:
        more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise ContractError(f"{folder}: the weights are not those of config.json: {wrong[0]}{more}. Cure: {RESTORE}")


def _text_ids(files: CheckpointFiles, config: PreTrainedConfig) -> int | None:
    """Ids of the tokenizer; None where there is none but the model is a Qwen3, whose tokenizer is known."""
    if any((files.folder / name).is_file() for name in ("tokenizer.json", "vocab.json")):
        check_growable(files.tokenizer, config.vocab_size)
        return end_of(files.tokenizer)
    if (config.model_type, config.vocab_size) != ("qwen3", QWEN3_ROWS):
        raise ContractError(
            f"{files.folder} holds no tokenizer (tokenizer.json), and the model is not a Qwen3 of {QWEN3_ROWS:,} rows"
        )
    return None


def _grown(before: Tensors, expected: Tensors, rows: int, dtype: torch.dtype | None) -> Tensors:
    after = {}
    for name, tensor in before.items():
        if name == HEAD and HEAD not in expected:
            continue  # tied: Qwen3-0.6B and 1.7B store their embedding a second time
        shape = (rows, tensor.shape[1]) if name in (EMBEDDING, HEAD) else tensor.shape
        kind = dtype if dtype is not None and tensor.is_floating_point() else tensor.dtype
        after[name] = torch.empty(shape, dtype=kind, device="meta")
    return after
