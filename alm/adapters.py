"""LoRA that learns new tokens and keeps tied weights tied: the configuration, what is refused, and merging.

The usual ways fail quietly on a grown Qwen3: plain LoRA never trains the new rows, and training the embedding through
`modules_to_save` leaves the head behind or unties it. Ours trains exactly the new rows (peft's `trainable_token_indices`), through the one
matrix where embedding and head are tied and through both where they are not.
"""

import importlib.util
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from alm.checkpoint_files import EMBEDDING, HEAD, local_folder
from alm.contract import RESTORE, Fault, require_no_faults
from alm.vocabulary import AudioVocabulary, ContractError

if TYPE_CHECKING:
    from peft import LoraConfig
    from transformers import PreTrainedModel

    from alm.processing import AudioLanguageProcessor

ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
EMBEDDING_LAYER, HEAD_LAYER = "embed_tokens", "lm_head"
LAYERS = {EMBEDDING_LAYER: EMBEDDING.removesuffix(".weight"), HEAD_LAYER: HEAD.removesuffix(".weight")}
CURE = "train with alm.adapters.lora_config, or recipes with --lora_rank, which name the new rows in trainable_token_indices"


def lora_config(
    vocabulary: AudioVocabulary, rank: int = 32, alpha: int | None = None, dropout: float = 0.0, **options: Any
) -> "LoraConfig":
    """peft's configuration for a grown Qwen3: LoRA on every linear layer, and the new rows themselves.

    `alpha` is twice the rank by default; `options` are `peft.LoraConfig`'s (they cannot take the new rows away).
    Raises `ContractError` for options under which the new tokens would not be learned or the weights untied, and without peft.
    """
    _require_peft()
    from peft import LoraConfig

    rows = new_rows(vocabulary)
    layers = {"target_modules": "all-linear", "task_type": "CAUSAL_LM", **options}
    config = LoraConfig(
        r=rank,
        lora_alpha=2 * rank if alpha is None else alpha,
        lora_dropout=dropout,
        # tied: the head follows the embedding's rows by itself
        trainable_token_indices=dict.fromkeys(_trained_layers(vocabulary), rows),
        **layers,
    )
    require_no_faults(adapter_faults(config.to_dict(), vocabulary), "this LoRA configuration")
    return config


def new_rows(vocabulary: AudioVocabulary) -> list[int]:
    """Ids whose rows growing added and sequences use: start, end and every audio token (the placeholder never reaches a model)."""
    return [*sorted({vocabulary.start_id, vocabulary.end_id}), *range(vocabulary.first_id, vocabulary.end)]


def adapter_faults(config: dict[str, Any], vocabulary: AudioVocabulary) -> Iterator[Fault]:
    """Why an `adapter_config.json` would not learn the new tokens, would untie the weights, or would merge to another model."""
    if low_rank := [layer for layer in LAYERS if _is_targeted(config.get("target_modules"), layer)]:
        yield Fault(
            "target_modules",
            f"{', '.join(low_rank)}: low-rank updates do not fit single rows, TRL's loss reads the head past its adapter, and merged into "
            "a tied matrix they change embedding and head alike",
            f"leave them out, and {CURE}",
        )
    saved = {_last(name) for name in config.get("modules_to_save") or []} & set(LAYERS)
    tying = vocabulary.tied and bool(config.get("ensure_weight_tying"))
    if saved and vocabulary.tied and not tying:
        yield Fault(
            "modules_to_save",
            f"{', '.join(sorted(saved))}: peft copies the tied matrix, so that embedding and head part and the model is untied",
            f"{CURE} (or set ensure_weight_tying, at the cost of training and storing the whole table)",
        )
        return
    whole = set(LAYERS) if saved and tying else saved
    needed, trained = set(new_rows(vocabulary)), _trained_rows(config)
    for layer in _trained_layers(vocabulary):
        rows = needed & trained.get(layer, set())
        if layer not in whole and rows != needed:
            yield Fault(
                f"trainable_token_indices of {layer}",
                f"{len(rows):,} of the {len(needed):,} new rows are trained: the other tokens stay as they were drawn",
                CURE,
            )


def weight_faults(folder: Path, vocabulary: AudioVocabulary) -> Iterator[Fault]:
    """Whether an adapter's file holds the trained rows that its configuration names; peft only warns where it does not. Reads headers."""
    path = folder / ADAPTER_WEIGHTS
    if not path.is_file():
        yield Fault(ADAPTER_WEIGHTS, f"{folder} holds no weights of the adapter", RESTORE)
        return
    try:
        with safe_open(path, "pt") as file:
            shapes = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        yield Fault(ADAPTER_WEIGHTS, f"cannot be read: {error}", RESTORE)
        return
    trained = _trained_rows(read_config(folder))
    for layer in _trained_layers(vocabulary):
        found = [shape[0] for name, shape in shapes.items() if f"{layer}.token_adapter" in name]
        if layer in trained and found != [len(trained[layer])]:
            problem = f"{found[0] if found else 'no'} trained rows of {layer}, but {ADAPTER_CONFIG} names {len(trained[layer]):,}"
            yield Fault(ADAPTER_WEIGHTS, problem, RESTORE)


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter rather than a whole model."""
    return (folder / ADAPTER_CONFIG).is_file() and not (folder / "config.json").is_file()


def read_config(folder: Path) -> dict[str, Any]:
    """A folder's `adapter_config.json`."""
    data: dict[str, Any] = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    return data


def adapter_base(folder: Path) -> Path:
    """The folder of the checkpoint that an adapter was trained on. Raises `ContractError` where it is not named or not there."""
    config = read_config(folder)
    base: str | None = config.get("base_model_name_or_path")
    cure = f"write the grown base's folder or Hub id into base_model_name_or_path of {folder / ADAPTER_CONFIG}"
    if not base:
        raise ContractError(f"the adapter names no base; {cure}")
    try:
        found = local_folder(base, config.get("revision"))
    except ContractError as error:
        raise ContractError(f"the adapter's base: {error}; {cure}") from error
    if is_adapter(found):
        raise ContractError(
            f"the adapter's base {base} is an adapter itself; merge and save that one first, and {cure}"
        )
    return found


def attach_adapter(model: "PreTrainedModel", folder: Path) -> "PreTrainedModel":
    """The base with an adapter merged into it: a plain Qwen3 again, tied as before."""
    _require_peft()
    from peft import PeftModel

    return merge(PeftModel.from_pretrained(model, folder))


def merge(model: Any) -> "PreTrainedModel":
    """A peft model's adapter merged into its base, in place. Raises `ContractError` where that unties what was tied.

    Every process needs the whole weights: under ZeRO-3 or FSDP it has none to merge into (`alm.training.lora` refuses those).
    """
    merged: PreTrainedModel = model.merge_and_unload()
    tied = merged.get_output_embeddings().weight is merged.get_input_embeddings().weight
    if tied != AudioVocabulary.from_dict(merged.config.audio_vocabulary).tied:
        raise ContractError(
            f"merging left embedding and output head {'tied' if tied else 'untied'}, against the contract. {CURE}"
        )
    return merged


def write_processor_file(processor: "AudioLanguageProcessor", folder: Path) -> None:
    """`processor_config.json` beside an adapter: the contract that its base is held to at load; the codec stays with the base."""
    text = json.dumps(processor.to_dict(), indent=2) + "\n"
    (folder / "processor_config.json").write_text(text, encoding="utf-8")


def _require_peft() -> None:
    if importlib.util.find_spec("peft") is None:
        raise ContractError("LoRA needs peft, which is not installed: pip install 'peft>=0.18'")


def _trained_layers(vocabulary: AudioVocabulary) -> tuple[str, ...]:
    return (EMBEDDING_LAYER,) if vocabulary.tied else (EMBEDDING_LAYER, HEAD_LAYER)


def _trained_rows(config: dict[str, Any]) -> dict[str, set[int]]:
    indices = config.get("trainable_token_indices") or {}
    by_layer = indices if isinstance(indices, dict) else {EMBEDDING_LAYER: indices}
    return {_last(name): set(rows) for name, rows in by_layer.items()}


def _is_targeted(targets: Any, layer: str) -> bool:
    if isinstance(targets, str):  # peft's own word (never embedding or head), or a regular expression over whole names
        return targets != "all-linear" and re.fullmatch(targets, LAYERS[layer]) is not None
    return layer in {_last(name) for name in targets or []}


def _last(name: str) -> str:
    return name.rpartition(".")[2]
