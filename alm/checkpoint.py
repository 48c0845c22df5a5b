"""Saving and loading checkpoints, each held to its vocabulary contract.

A checkpoint is a plain Qwen3 folder (config, safetensors, tokenizer, generation config) plus the processor's file and its codec:
stock Transformers loads it, and so does every engine that serves Qwen3.
"""

from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from alm.adapters import adapter_base, attach_adapter, is_adapter
from alm.checkpoint_files import local_folder
from alm.contract import RESTORE, require_no_faults
from alm.doctor import examine
from alm.processing import AudioLanguageProcessor
from alm.vocabulary import ContractError
from codec.base import Codec
from codec.zoo import load_codec


class LoadedCheckpoint(NamedTuple):
    """A language model and the processor that speaks its ids."""

    model: PreTrainedModel
    processor: AudioLanguageProcessor


def save_checkpoint(model: PreTrainedModel, processor: AudioLanguageProcessor, path: str | Path) -> None:
    """Write a complete checkpoint: config, safetensors, tokenizer, template, generation config, processor, codec."""
    model.save_pretrained(path)
    processor.save_pretrained(path)


def load_checkpoint(
    path: str | Path,
    codec: str | Path | Codec | None = None,
    device: str = "cpu",
    dtype: torch.dtype | None = None,
    check_codec: bool = True,
    revision: str | None = None,
    quantization: Any = None,
) -> LoadedCheckpoint:
    """Load a checkpoint (folder or Hub id) and hold model, tokenizer, processor and codec to one vocabulary contract.

    `codec` replaces the codec saved with the checkpoint (a loaded one, a folder or a Hub id); `dtype` defaults to the saved one.
    `check_codec=False` leaves the codec unloaded until it is needed: for training from a token store. A folder of a LoRA adapter loads
    its base and merges the adapter into it (`alm.adapters`). `quantization` is Transformers' `quantization_config`.
    Raises `ContractError`, which names every field that does not fit, with both sides and the cure.
    """
    folder = local_folder(path, revision)
    base = adapter_base(folder) if is_adapter(folder) else folder
    require_no_faults(examine(folder), str(path))
    processor = _processor(base, codec, device, check_codec)
    model = _load_model(base, dtype, quantization)
    if base != folder:
        model = attach_adapter(model, folder)
    return LoadedCheckpoint((model if device == "cpu" else model.to(device)).eval(), processor)


def load_processor(
    path: str | Path, codec: str | Path | Codec | None = None, device: str = "cpu"
) -> AudioLanguageProcessor:
    """The processor of a whole checkpoint (no adapter) without its weights; arguments and errors are those of `load_checkpoint`."""
    folder = local_folder(path)
    require_no_faults(examine(folder), str(path))
    return _processor(folder, codec, device, check_codec=True)


def _processor(
    folder: Path, codec: str | Path | Codec | None, device: str, check_codec: bool
) -> AudioLanguageProcessor:
    processor = AudioLanguageProcessor.from_pretrained(folder)
    processor.codec_device = device
    if isinstance(codec, str | Path):
        processor.codec_reference = str(codec)
        processor.codec = load_codec(codec, device)
    elif codec is not None:
        processor.codec = codec
    elif check_codec and processor.codec_reference is not None:
        processor.codec = load_codec(processor.codec_reference, device)
    return processor


def _load_model(folder: Path, dtype: torch.dtype | None, quantization: Any) -> PreTrainedModel:
    given = {} if quantization is None else {"quantization_config": quantization}
    model, loading = AutoModelForCausalLM.from_pretrained(
        folder, dtype=dtype or "auto", output_loading_info=True, **given
    )
    if missing := sorted(loading["missing_keys"]):
        raise ContractError(
            f"{folder} lacks {len(missing)} tensors ({', '.join(missing[:3])}, …); Transformers would fill them with random values. "
            f"Cure: {RESTORE}"
        )
    return model
