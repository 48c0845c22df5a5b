"""LoRA that learns new tokens and keeps tied weights tied: the configuration, what is refused, and merging.

The usual ways fail quietly on a grown Qwen3: plain LoRA never trains the new rows, and training the embedding through
`modules_to_save` leaves the head behind or unties it. Ours trains exactly the new rows (peft's `trainable_token_indices`), through the one
matrix where embedding and head are tied and through both where they are not.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alm.contract import Fault, require_no_faults
from alm.vocabulary import AudioVocabulary, ContractError

if TYPE_CHECKING:
    from peft import LoraConfig
    from transformers import PreTrainedModel

ADAPTER_CONFIG = "adapter_config.json"
EMBEDDING, HEAD = "embed_tokens", "lm_head"
CURE = "train with alm.adapters.lora_config, or recipes with --lora_rank, which name the new rows in trainable_token_indices"


def lora_config(
    vocabulary: AudioVocabulary, rank: int = 32, alpha: int | None = None, dropout: float = 0.0, **options: Any
) -> "LoraConfig":
    """peft's configuration for a grown Qwen3: LoRA on every linear layer, and the new rows themselves.

    `alpha` is twice the rank by default; `options` are `peft.LoraConfig`'s (they cannot take the new rows away).
    Raises `ContractError` for options under which the new tokens would not be learned or the weights untied.
    """
    from peft import LoraConfig

    rows = new_rows(vocabulary)
    layers = {"target_modules": "all-linear", "task_type": "CAUSAL_LM", **options}
    config = LoraConfig(
        r=rank,
        lora_alpha=2 * rank if alpha is None else alpha,
        lora_dropout=dropout,
        # tied: the head follows the embedding's rows by itself, and naming it would train a second copy
        trainable_token_indices={EMBEDDING: rows} if vocabulary.tied else {EMBEDDING: rows, HEAD: rows},
        **layers,
    )
    require_no_faults(adapter_faults(config.to_dict(), vocabulary), "this LoRA configuration")
    return config


def new_rows(vocabulary: AudioVocabulary) -> list[int]:
    """Ids whose rows growing added: the special tokens and every audio token."""
    return [*sorted({vocabulary.start_id, vocabulary.end_id}), *range(vocabulary.first_id, vocabulary.end)]


def adapter_faults(config: dict[str, Any], vocabulary: AudioVocabulary) -> Iterator[Fault]:
    """Why an `adapter_config.json` would not learn the new tokens, or would untie the weights."""
    saved = set(config.get("modules_to_save") or [])
    tying = bool(config.get("ensure_weight_tying"))
    indices = config.get("trainable_token_indices") or {}
    by_layer = indices if isinstance(indices, dict) else {EMBEDDING: indices}
    if vocabulary.tied and saved & {EMBEDDING, HEAD} and not tying:
        yield Fault(
            "modules_to_save",
            f"{', '.join(sorted(saved))}: peft copies the tied matrix, so that embedding and head part and the model is untied",
            f"{CURE} (or set ensure_weight_tying, at the cost of storing the whole table)",
        )
        return
    needed = set(new_rows(vocabulary))
    for layer in (EMBEDDING,) if vocabulary.tied else (EMBEDDING, HEAD):
        rows = needed & set(by_layer.get(layer) or [])
        if layer not in saved and not (tying and saved & {EMBEDDING, HEAD}) and rows != needed:
            yield Fault(
                f"trainable rows of {layer}",
                f"{len(rows):,} of the {len(needed):,} new rows are trained: the other tokens stay as they were drawn",
                CURE,
            )


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter rather than a whole model."""
    return (folder / ADAPTER_CONFIG).is_file() and not (folder / "config.json").is_file()


def adapter_base(folder: Path) -> str:
    """The checkpoint that an adapter was trained on: folder or Hub id. Raises `ContractError` where it is not named."""
    base: str | None = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8")).get("base_model_name_or_path")
    if not base:
        raise ContractError(
            f"{folder / ADAPTER_CONFIG} names no base_model_name_or_path; write the grown base's folder or Hub id there"
        )
    return base


def attach_adapter(model: "PreTrainedModel", folder: Path) -> "PreTrainedModel":
    """The base with an adapter merged into it: a plain Qwen3 again, tied as before."""
    from peft import PeftModel

    return merge(PeftModel.from_pretrained(model, folder))


def merge(model: Any) -> "PreTrainedModel":
    """A peft model's adapter merged into its base. Raises `ContractError` where that unties what was tied."""
    merged: PreTrainedModel = model.merge_and_unload()
    tied = merged.get_output_embeddings().weight is merged.get_input_embeddings().weight
    if tied != AudioVocabulary.from_dict(merged.config.audio_vocabulary).tied:
        raise ContractError(
            f"merging left embedding and output head {'tied' if tied else 'untied'}, against the contract. {CURE}"
        )
    return merged
