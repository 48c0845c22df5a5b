"""A model's shape without its weights, on the meta device: what a plan counts, from `config.json` alone."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig, PreTrainedConfig

from alm.adapters import adapter_base, is_adapter, lora_config
from alm.checkpoint_files import local_folder
from alm.contract import require_no_faults
from alm.doctor import examine
from alm.growing import RowMap
from alm.growth_plan import QWEN3_ROWS, QWEN3_TEXT_IDS
from alm.processing import AudioLanguageProcessor
from alm.training.layout import Layout
from alm.training.lora import require_whole_tables, with_lora
from alm.vocabulary import AudioVocabulary, ContractError

if TYPE_CHECKING:
    from transformers import TrainingArguments

ASSUMED_CODES = 16_384
"""Audio tokens counted for a model that has none yet: the paper's codebook."""


class Outline(NamedTuple):
    """A model on the meta device, wrapped by peft where LoRA is asked for; `assumed`: audio tokens that it will have and has not."""

    model: Any
    vocabulary: AudioVocabulary
    assumed: int


def outline(name: str, args: Any, training: "TrainingArguments", layout: Layout) -> Outline:
    """The shape that a run of `args` (`RunArguments`) trains, of a folder or Hub id of which only the small files are read.

    Raises `ContractError` where there is no `config.json` of a language model, or where `layout` leaves LoRA no whole tables.
    """
    require_whole_tables(layout.whole_weights or not args.lora_rank)
    folder = local_folder(name, weights=False)
    config = _config(folder)
    stored = getattr(config, "audio_vocabulary", None)
    vocabulary = AudioVocabulary.from_dict(stored) if stored else _assumed(config)
    config.vocab_size = vocabulary.rows
    as_stored = bool(args.lora_rank and layout.half_precision)  # as `LanguageModelRun.load`
    with torch.device("meta"):
        # not `from_config`: under ZeRO-3 it would shard, which takes all processes
        model: Any = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)](config).to(config.dtype if as_stored else torch.float32)
        if args.lora_rank:
            tuning = lora_config(vocabulary, args.lora_rank, args.lora_alpha)
            model = with_lora(model, tuning, name, training)
    return Outline(model, vocabulary, 0 if stored else vocabulary.size)


def processor_alone(name: str, whole: bool = True) -> AudioLanguageProcessor:
    """The processor of a checkpoint that is examined, but not loaded; where not `whole`, its small files are enough.

    Raises `ContractError` for what is no sound checkpoint, or has no processor.
    """
    folder = local_folder(name, weights=whole)
    if whole:
        require_no_faults(examine(folder), name)
    elif not (folder / "processor_config.json").is_file():
        raise ContractError(
            f"{name} holds no processor (processor_config.json), which data are read with: give a folder written by "
            "recipes/extend_vocabulary.py or a training recipe, or leave the data out"
        )
    return AudioLanguageProcessor.from_pretrained(adapter_base(folder) if is_adapter(folder) else folder)


def _config(folder: Path) -> PreTrainedConfig:
    try:
        return AutoConfig.from_pretrained(folder)
    except (OSError, ValueError) as error:
        raise ContractError(
            f"{folder}: no config.json of a language model to plan from: {str(error).splitlines()[0]}"
        ) from error


def _assumed(config: PreTrainedConfig) -> AudioVocabulary:
    """The vocabulary after growing by the paper's codec; what does not change a shape is left empty."""
    text_ids = QWEN3_TEXT_IDS if config.vocab_size == QWEN3_ROWS else config.vocab_size
    rows = RowMap(text_ids, config.vocab_size, ASSUMED_CODES)
    return AudioVocabulary(
        codec_fingerprint="",
        sampling_rate=24_000,
        frame_rate=50.0,
        num_codebooks=1,
        codebook_size=ASSUMED_CODES,
        first_id=rows.first_id,
        start_id=text_ids,
        end_id=text_ids + 1,
        placeholder_id=text_ids + 2,
        stop_id=text_ids - 1,
        pad_id=text_ids - 2,
        rows=rows.rows,
        tied=bool(config.tie_word_embeddings),
        tokenizer_hash="",
        chat_template_hash="",
    )
