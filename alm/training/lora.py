"""LoRA in a training run: the model wrapped before the trainer is built, and what a run may go on from.

Tried on one and on two CPU processes (DDP, ZeRO-2). Refused: ZeRO-3 and FSDP, under which no process has a whole table to merge new rows
into; under ZeRO-3 peft (0.21) reads those rows on CUDA devices only, so that it could not be tried.
"""

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import PreTrainedModel, TrainingArguments, set_seed
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled

from alm.adapters import is_adapter, read_config
from alm.data.example import DataError
from alm.training.processes import uses_fsdp
from alm.vocabulary import ContractError

if TYPE_CHECKING:
    from peft import LoraConfig

RECORDED = ("r", "lora_alpha", "lora_dropout", "base_model_name_or_path")


def with_lora(
    model: PreTrainedModel, config: "LoraConfig", base: str, args: TrainingArguments, finished: str | None = None
) -> Any:
    """A `peft.PeftModel` around `model`, whose own weights are frozen; adapters will name `base` (folder or Hub id) as theirs.

    First values depend on `args.seed` alone. `finished`: the checkpoint whose adapter is loaded instead, where nothing is left to train.
    Raises `ContractError` where the weights are sharded, or where `base` is an adapter itself.
    """
    from peft import PeftModel, get_peft_model

    require_whole_tables(not (is_deepspeed_zero3_enabled() or uses_fsdp(args)))
    if is_adapter(Path(base)):
        raise ContractError(
            f"{base} is an adapter; LoRA on top of it would have no plain base. Give a merged model: a recipe's OUTPUT_DIR is one, and "
            "alm.checkpoint's load_checkpoint and save_checkpoint make one"
        )
    if finished is not None:
        return PeftModel.from_pretrained(model, finished, is_trainable=True)
    model.name_or_path = base_reference(base)  # peft takes the adapter's base from here
    set_seed(args.seed)
    wrapped = get_peft_model(model, config)
    # TRL's loss, which a GPU takes, reads the head's weight and bias; peft's wrapper of trained rows (0.21) passes on the weight alone
    wrapped.get_output_embeddings().bias = None
    return wrapped


def four_bits() -> Any:
    """Transformers' configuration of a base in NF4, embedding and head as they are. Raises `ContractError` without bitsandbytes."""
    import torch
    from transformers import BitsAndBytesConfig

    if importlib.util.find_spec("bitsandbytes") is None:
        raise ContractError(
            "--quantize_base needs bitsandbytes, which is not installed: pip install 'bitsandbytes>=0.46'"
        )
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
        llm_int8_skip_modules=["lm_head"],  # single rows of it are trained, and TRL's loss reads its weight
    )


def require_whole_tables(whole: bool) -> None:
    """Raise `ContractError` where a process has not the whole weights."""
    if not whole:
        raise ContractError(
            "LoRA trains and merges rows of whole tables, and ZeRO-3 and FSDP shard them. Only the adapter has optimiser state, so ZeRO-2 "
            "costs little more memory: use that, or --lora_rank 0"
        )


def base_reference(base: str) -> str:
    """How an adapter names its base: a folder by its absolute path, so that it is found from anywhere; a Hub id as it is."""
    return str(Path(base).resolve()) if Path(base).is_dir() else base


def require_same_tuning(checkpoint: str | None, config: "LoraConfig | None", base: str) -> None:
    """Raise `DataError` where a run would go on from a checkpoint of other LoRA settings, another base, or of full fine-tuning."""
    if checkpoint is None:
        return
    saved = read_config(Path(checkpoint)) if is_adapter(Path(checkpoint)) else {}
    ours = {**config.to_dict(), "base_model_name_or_path": base_reference(base)} if config is not None else {}
    known, wanted = ({name: settings.get(name) for name in RECORDED if settings} for settings in (saved, ours))
    if known != wanted:
        raise DataError(
            f"{checkpoint} was trained with {_words(known)}, this command asks for {_words(wanted)}. Give the same --lora_rank, "
            "--lora_alpha, --lora_dropout and --model, another --output_dir, or --overwrite_output to train anew"
        )


def _words(settings: dict[str, Any]) -> str:
    if not settings:
        return "full fine-tuning"
    rank, alpha, dropout, base = settings.values()
    return f"LoRA of rank {rank}, alpha {alpha}, dropout {dropout} on {base}"
