"""Growing a language model by a codec's vocabulary once, offline; saving, loading and verifying checkpoints.

A checkpoint is a plain Qwen3 folder (config, safetensors, tokenizer, generation config) plus the processor's file and its codec:
stock Transformers loads it, and so does every engine that serves Qwen3.
"""

from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import AddedToken
from transformers import AutoModelForCausalLM, GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from alm.processing import AudioLanguageProcessor
from alm.prompts import CHAT_TEMPLATE, PADDING, TURN_END, TURN_START
from alm.vocabulary import (
    AUDIO_END,
    AUDIO_PLACEHOLDER,
    AUDIO_START,
    SPECIAL_TOKENS,
    AudioVocabulary,
    ContractError,
    digest,
)
from codec.base import Codec
from codec.zoo import load_codec

Initialisation = Literal["codebook", "gaussian", "mean"]
ROW_MULTIPLE = 64  # tensor cores and tensor-parallel engines want it


class LoadedCheckpoint(NamedTuple):
    """A language model and the processor that speaks its ids."""

    model: PreTrainedModel
    processor: AudioLanguageProcessor


def grow_vocabulary(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    codec: Codec,
    initialisation: Initialisation = "codebook",
    seed: int = 0,
) -> AudioVocabulary:
    """Add the codec's tokens to model and tokenizer, in place, and store the contract in `model.config.audio_vocabulary`.

    Ids are explicit: special tokens first, then one contiguous range of audio tokens, from the tokenizer's end on (151,669 for Qwen3, whose
    embedding has 151,936 rows: the spare rows are used). Rows become the next multiple of 64 that holds all ids, never fewer than before.
    Tied weights stay tied, and rows of old ids keep every bit. New rows get the text rows' mean and standard deviation per dimension;
    `codebook` places them by the codec's codebook (near codes, near rows), `gaussian` at random, `mean` close to the mean (1 % of the
    deviation). Raises `ContractError` where the tokenizer is not Qwen-like or grown already, `ValueError` for `codebook` without geometry.
    """
    first = _end_of(tokenizer)
    _check_growable(tokenizer)
    vocabulary = AudioVocabulary(
        codec_fingerprint=codec.fingerprint,
        sampling_rate=codec.sampling_rate,
        frame_rate=codec.frame_rate,
        num_codebooks=codec.num_codebooks,
        codebook_size=codec.codebook_size,
        first_id=first + len(SPECIAL_TOKENS),
        start_id=first + SPECIAL_TOKENS.index(AUDIO_START),
        end_id=first + SPECIAL_TOKENS.index(AUDIO_END),
        placeholder_id=first + SPECIAL_TOKENS.index(AUDIO_PLACEHOLDER),
        chat_template_hash=digest(CHAT_TEMPLATE),
    )
    structure = _structure(codec, initialisation, model.get_input_embeddings().weight.shape[1], seed)
    tokenizer.add_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS])
    # not special: an engine's text output must show audio tokens, or they would be lost to whoever decodes them
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in vocabulary.tokens()])
    tokenizer.chat_template, tokenizer.eos_token, tokenizer.pad_token = CHAT_TEMPLATE, TURN_END, PADDING

    old_rows = model.get_input_embeddings().weight.shape[0]
    rows = max(old_rows, -(-(vocabulary.first_id + vocabulary.size) // ROW_MULTIPLE) * ROW_MULTIPLE)
    # Transformers' mean_resizing takes 13.7 CPU-seconds at 0.6B and draws all new rows within 5e-5 of their mean
    model.resize_token_embeddings(rows, mean_resizing=False)
    tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    for layer in [model.get_input_embeddings(), *([] if tied else [model.get_output_embeddings()])]:
        _fill_rows(layer.weight, first, vocabulary.first_id, structure)

    stop, pad = tokenizer.eos_token_id, tokenizer.pad_token_id
    model.config.audio_vocabulary = vocabulary.to_dict()
    model.config.eos_token_id, model.config.pad_token_id, model.config.bos_token_id = stop, pad, None
    # Qwen's own file lists the padding among the stop tokens
    model.generation_config = GenerationConfig(eos_token_id=[stop], pad_token_id=pad)
    verify_contract(model, tokenizer, vocabulary)
    return vocabulary


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
) -> LoadedCheckpoint:
    """Load a checkpoint (folder or Hub id) and hold model, tokenizer, processor and codec to one vocabulary contract.

    `codec` replaces the codec saved with the checkpoint (a loaded one, a folder or a Hub id); `dtype` defaults to the saved one.
    `check_codec=False` leaves the codec unloaded until it is needed: for training from a token store.
    Raises `ContractError`, with both sides, where anything does not fit.
    """
    _check_folder(path)
    try:
        processor = AudioLanguageProcessor.from_pretrained(path)
    except OSError as error:
        raise ContractError(f"{path}: no such folder, and from the Hub: {str(error).splitlines()[0]}") from error
    processor.codec_device = device
    if isinstance(codec, str | Path):
        processor.codec_reference = str(codec)
        processor.codec = load_codec(codec, device)
    elif codec is not None:
        processor.codec = codec
    elif check_codec and processor.codec_reference is not None:
        processor.codec = load_codec(processor.codec_reference, device)
    model = AutoModelForCausalLM.from_pretrained(path, dtype=dtype or "auto")
    model = model if device == "cpu" else model.to(device)
    stored = getattr(model.config, "audio_vocabulary", None)
    if stored is None:
        raise ContractError(
            f"{path} has no audio vocabulary; grow it first: recipes/extend_vocabulary.py --model {path}"
        )
    vocabulary = AudioVocabulary.from_dict(stored)
    if vocabulary != processor.vocabulary:
        raise ContractError(
            f"{path}: config.json has vocabulary {vocabulary.hash}, processor_config.json {processor.vocabulary.hash}: "
            "files of two checkpoints in one folder?"
        )
    verify_contract(model, processor.tokenizer, vocabulary)
    return LoadedCheckpoint(model.eval(), processor)


def verify_contract(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, vocabulary: AudioVocabulary) -> None:
    """Raise `ContractError` unless tokenizer ids, chat template and rows are what the vocabulary says."""
    tokens = vocabulary.tokens()
    expected = {
        AUDIO_START: vocabulary.start_id,
        AUDIO_END: vocabulary.end_id,
        AUDIO_PLACEHOLDER: vocabulary.placeholder_id,
        tokens[0]: vocabulary.first_id,
        tokens[-1]: vocabulary.first_id + vocabulary.size - 1,
    }
    for token, number in expected.items():
        if (found := tokenizer.convert_tokens_to_ids(token)) != number:
            raise ContractError(f"the tokenizer gives {token} the id {found}, the vocabulary contract {number}")
    found_hash = digest(tokenizer.chat_template)
    if found_hash != vocabulary.chat_template_hash:
        raise ContractError(
            f"chat template with hash {found_hash}, the vocabulary contract has {vocabulary.chat_template_hash}"
        )
    needed = vocabulary.first_id + vocabulary.size
    for name, layer in [("embedding", model.get_input_embeddings()), ("output head", model.get_output_embeddings())]:
        rows = getattr(layer.weight, "ds_shape", layer.weight.shape)[0]  # ZeRO-3 leaves an empty local shape
        if rows < needed or rows != model.config.vocab_size:
            raise ContractError(
                f"the {name} has {rows} rows, config.vocab_size is {model.config.vocab_size}, and the vocabulary needs {needed}"
            )


def _end_of(tokenizer: PreTrainedTokenizerBase) -> int:
    """The first id that no token has; where ids have holes, the one after the last."""
    return max(tokenizer.get_vocab().values()) + 1


def _check_growable(tokenizer: PreTrainedTokenizerBase) -> None:
    known = tokenizer.get_vocab()
    missing = [token for token in (TURN_START, TURN_END, PADDING) if token not in known]
    if missing:
        raise ContractError(f"the tokenizer lacks {', '.join(missing)}; a Qwen tokenizer (ChatML) is needed")
    if AUDIO_START in known:
        raise ContractError(
            "this model has an audio vocabulary already; a vocabulary is grown once, so start from the text-only model"
        )


def _structure(codec: Codec, initialisation: Initialisation, width: int, seed: int) -> torch.Tensor:
    """Standardised rows `(K × codebook_size, D)`: mean 0 and deviation 1 in every dimension (0.01 for `mean`)."""
    size = codec.num_codebooks * codec.codebook_size
    generator = torch.Generator().manual_seed(seed)
    if initialisation == "codebook":
        vectors = codec.codebook_vectors()
        if vectors is None:
            raise ValueError("this codec has no codebook geometry; use --initialisation gaussian")
        return _project(vectors, codec.num_codebooks, width, generator)
    if initialisation not in ("gaussian", "mean"):
        raise ValueError(f"initialisation is codebook, gaussian or mean, got {initialisation!r}")
    return torch.randn(size, width, generator=generator) * (0.01 if initialisation == "mean" else 1.0)


def _project(vectors: NDArray[np.float32], num_codebooks: int, width: int, generator: torch.Generator) -> torch.Tensor:
    """Codebook vectors `(K × size, D_code)` to `(K × size, D)`, each codebook through a random map of its own."""
    parts = []
    for book in torch.from_numpy(np.array(vectors, dtype=np.float32)).chunk(num_codebooks):
        rows = (book - book.mean(0)) @ torch.randn(book.shape[1], width, generator=generator)
        deviation = rows.std(0)
        if not bool((deviation > 0).all()):
            raise ValueError("the codebook's vectors are all the same; use --initialisation gaussian")
        parts.append((rows - rows.mean(0)) / deviation)
    return torch.cat(parts)


@torch.no_grad()
def _fill_rows(weight: torch.Tensor, text_rows: int, first_audio: int, structure: torch.Tensor) -> None:
    """Set all rows from `text_rows` on: specials at random, audio by structure, unused ones to the mean."""
    text = weight[:text_rows].float()
    mean, deviation = text.mean(0), text.std(0)
    special = torch.randn(first_audio - text_rows, weight.shape[1], generator=torch.Generator().manual_seed(text_rows))
    last = first_audio + len(structure)
    weight[text_rows:first_audio] = (mean + deviation * special.to(weight.device)).to(weight.dtype)
    weight[first_audio:last] = (mean + deviation * structure.to(weight.device)).to(weight.dtype)
    weight[last:] = mean.to(weight.dtype)


def _check_folder(path: str | Path) -> None:
    folder = Path(path)
    if folder.is_dir():
        wanted: dict[str, Any] = {"config.json": "language model", "processor_config.json": "processor"}
        for name, what in wanted.items():
            if not (folder / name).is_file():
                raise ContractError(
                    f"{folder} holds no {what} ({name} is missing); give a folder written by "
                    "recipes/extend_vocabulary.py or a training recipe"
                )
    elif str(path).count("/") != 1 or folder.is_absolute():
        raise ContractError(f"{path}: no such folder, and not the form of a Hub id (owner/name)")
