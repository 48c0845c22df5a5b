"""Growing a checkpoint's folder by a codec's vocabulary, file by file: for models that one does not load to change two matrices.

The result is the one of `alm.growing.grow_vocabulary`, bit for bit, with one file of weights in memory at a time, and that one mapped.
"""

import json
import shutil
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import AutoConfig, GenerationConfig

from alm.checkpoint_files import EMBEDDING, HEAD, INDEX, CheckpointFiles
from alm.growing import (
    Initialisation,
    config_entries,
    extend_tokenizer,
    fill_rows,
    generation_entries,
    new_row_structure,
)
from alm.growth_plan import GrowthPlan, Shard
from alm.processing import AudioLanguageProcessor
from alm.vocabulary import AudioVocabulary, ContractError
from codec.base import Codec


def grow_checkpoint(
    plan: GrowthPlan,
    target: Path,
    codec: Codec,
    initialisation: Initialisation = "codebook",
    seed: int = 0,
    codec_reference: str | None = None,
) -> AudioVocabulary:
    """Write the grown checkpoint of a plan (`alm.growth_plan.plan_growth`) to a new folder: weights, configs, tokenizer, processor, codec.

    `codec_reference` names a codec that has no files of its own to save (a Hub id). Rows and errors are those of `grow_vocabulary`;
    raises `ContractError`, too, where weights or tokenizer are not here, or a tied model stores a head that differs from its embedding,
    and `FileExistsError` where `target` exists.
    """
    if not (plan.weights_here and plan.tokenizer_here):
        what = "all its weights (safetensors)" if not plan.weights_here else "its tokenizer (tokenizer.json)"
        raise ContractError(f"{plan.source} does not hold {what}; complete the folder")
    files = CheckpointFiles(plan.source)
    if plan.tied and HEAD in files.weights:
        _check_tied_head(files)
    tokenizer = files.tokenizer
    vocabulary = extend_tokenizer(tokenizer, codec, plan.rows.rows_before, plan.tied)
    structure = new_row_structure(codec, initialisation, plan.width, seed)

    target.mkdir(parents=True)
    for shard in plan.shards:
        if shard.copied:
            # no hard link: whoever later writes into the new folder in place must not write into the old one
            shutil.copyfile(plan.source / shard.source, target / shard.target)
        else:
            _rewrite(shard, plan, target, vocabulary, structure)
    if len(plan.shards) > 1:
        _write_index(plan, target)
    config = AutoConfig.from_pretrained(plan.source)
    for name, value in {**config_entries(vocabulary), "dtype": plan.dtype}.items():
        setattr(config, name, value)
    config.save_pretrained(target)
    GenerationConfig(**generation_entries(vocabulary)).save_pretrained(target)
    processor = AudioLanguageProcessor(tokenizer, vocabulary, config.max_position_embeddings, codec_reference)
    processor.codec = codec
    processor.save_pretrained(target)
    return vocabulary


def _rewrite(
    shard: Shard, plan: GrowthPlan, target: Path, vocabulary: AudioVocabulary, structure: torch.Tensor
) -> None:
    tensors = {}
    with safe_open(plan.source / shard.source, "pt") as file:
        for name, planned in shard.after.items():
            old = file.get_tensor(name)  # mapped: nothing is read before it is written or converted
            if name not in (EMBEDDING, HEAD):
                tensors[name] = old.to(planned.dtype)
                continue
            tensors[name] = torch.empty(planned.shape, dtype=planned.dtype)
            tensors[name][: plan.rows.text_ids] = old[: plan.rows.text_ids]
            fill_rows(tensors[name], plan.rows.text_ids, vocabulary, structure)
        save_file(tensors, target / shard.target, metadata={"format": "pt"})


def _check_tied_head(files: CheckpointFiles) -> None:
    """A tied model may store its embedding a second time; where the two differ, Transformers would untie them with a mere warning."""
    with safe_open(files.weights[EMBEDDING], "pt") as one, safe_open(files.weights[HEAD], "pt") as other:
        same = torch.equal(one.get_tensor(EMBEDDING), other.get_tensor(HEAD))
    if not same:
        raise ContractError(
            f"{files.folder}: config.json ties embedding and output head, but {HEAD} differs from {EMBEDDING}. Cure: set "
            "tie_word_embeddings to false, or remove the head from the weights"
        )


def _write_index(plan: GrowthPlan, target: Path) -> None:
    index = {
        "metadata": {"total_parameters": plan.parameters, "total_size": plan.bytes},
        "weight_map": {name: shard.target for shard in plan.shards for name in shard.after},
    }
    (target / INDEX).write_text(json.dumps(index, indent=2, sort_keys=True) + "\n", encoding="utf-8")
