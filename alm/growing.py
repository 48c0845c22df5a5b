"""Growing a language model by a codec's vocabulary: once, offline, before any training.

Ids, rows and their first values are decided here and nowhere else; the result carries its contract (`alm.vocabulary`) from then on.
`grow_vocabulary` grows a model in memory, `alm.growing_folder` a checkpoint's folder, both through the same pieces.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import AddedToken
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from alm.contract import ROW_MULTIPLE, tokenizer_hash, verify_contract
from alm.prompts import CHAT_TEMPLATE, PADDING, TURN_END, TURN_START
from alm.vocabulary import (
    AUDIO_END,
    AUDIO_PLACEHOLDER,
    AUDIO_START,
    SPECIAL_TOKENS,
    AudioVocabulary,
    ContractError,
    audio_token_names,
    digest,
)
from codec.base import Codec

Initialisation = Literal["codebook", "gaussian", "mean"]


@dataclass(frozen=True)
class RowMap:
    """Which row of embedding and head belongs to what: text, the special tokens, `size` audio tokens, then padding.

    Ids of text stay where they are. A model may have more `rows_before` than `text_ids` (Qwen3: 151,936 and 151,669): the new tokens
    take those spare rows first.
    """

    text_ids: int
    rows_before: int
    size: int

    @property
    def first_id(self) -> int:
        """The first audio id; the special tokens lie before it."""
        return self.text_ids + len(SPECIAL_TOKENS)

    @property
    def end(self) -> int:
        """One past the last audio id."""
        return self.first_id + self.size

    @property
    def rows(self) -> int:
        """Rows after growing: the next multiple of 64 that holds all ids, never fewer than before."""
        return max(self.rows_before, -(-self.end // ROW_MULTIPLE) * ROW_MULTIPLE)


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
    deviation). Raises `ContractError` where the tokenizer is not Qwen-like or grown already, or for `codebook` without geometry.
    """
    embedding, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    tied = head is embedding
    text_ids = end_of(tokenizer)
    structure = new_row_structure(codec, initialisation, embedding.shape[1], seed)
    vocabulary = extend_tokenizer(tokenizer, codec, embedding.shape[0], tied)
    # Transformers' mean_resizing takes 13.7 CPU-seconds at 0.6B and draws all new rows within 5e-5 of their mean
    model.resize_token_embeddings(vocabulary.rows, mean_resizing=False)
    for layer in [model.get_input_embeddings(), *([] if tied else [model.get_output_embeddings()])]:
        fill_rows(layer.weight, text_ids, vocabulary, structure)
    for name, value in config_entries(vocabulary).items():
        setattr(model.config, name, value)
    model.generation_config = GenerationConfig(**generation_entries(vocabulary))
    verify_contract(model, tokenizer, vocabulary)
    return vocabulary


def extend_tokenizer(tokenizer: PreTrainedTokenizerBase, codec: Codec, rows: int, tied: bool) -> AudioVocabulary:
    """Add the codec's tokens to a tokenizer, in place, for a model with so many `rows`; returns the contract of the grown model.

    Raises `ContractError` where the tokenizer is not Qwen-like or grown already, or has ids beyond the model's rows.
    """
    first = end_of(tokenizer)
    check_growable(tokenizer, rows)
    row_map = RowMap(first, rows, codec.num_codebooks * codec.codebook_size)
    names = audio_token_names(codec.num_codebooks, codec.codebook_size)
    tokenizer.add_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS])
    # not special: an engine's text output must show audio tokens, or they would be lost to whoever decodes them
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in names])
    tokenizer.chat_template, tokenizer.eos_token, tokenizer.pad_token = CHAT_TEMPLATE, TURN_END, PADDING
    return AudioVocabulary(
        codec_fingerprint=codec.fingerprint,
        sampling_rate=codec.sampling_rate,
        frame_rate=codec.frame_rate,
        num_codebooks=codec.num_codebooks,
        codebook_size=codec.codebook_size,
        first_id=row_map.first_id,
        start_id=first + SPECIAL_TOKENS.index(AUDIO_START),
        end_id=first + SPECIAL_TOKENS.index(AUDIO_END),
        placeholder_id=first + SPECIAL_TOKENS.index(AUDIO_PLACEHOLDER),
        stop_id=tokenizer.eos_token_id,
        pad_id=tokenizer.pad_token_id,
        rows=row_map.rows,
        tied=tied,
        tokenizer_hash=tokenizer_hash(tokenizer),
        chat_template_hash=digest(CHAT_TEMPLATE),
    )


def config_entries(vocabulary: AudioVocabulary) -> dict[str, Any]:
    """What growing sets in `config.json`."""
    return {
        "audio_vocabulary": vocabulary.to_dict(),
        "vocab_size": vocabulary.rows,
        "eos_token_id": vocabulary.stop_id,
        "pad_token_id": vocabulary.pad_id,
        "bos_token_id": None,
    }


def generation_entries(vocabulary: AudioVocabulary) -> dict[str, Any]:
    """What growing leaves in `generation_config.json`: Qwen's own lists the padding among the stop tokens."""
    return {"eos_token_id": [vocabulary.stop_id], "pad_token_id": vocabulary.pad_id}


def end_of(tokenizer: PreTrainedTokenizerBase) -> int:
    """The first id that no token has; where ids have holes, the one after the last."""
    return max(tokenizer.get_vocab().values()) + 1


def check_growable(tokenizer: PreTrainedTokenizerBase, rows: int) -> None:
    """Raise `ContractError` where the tokenizer is not Qwen-like or grown already, or has ids beyond the model's `rows`."""
    known = tokenizer.get_vocab()
    if rows < end_of(tokenizer):
        raise ContractError(
            f"the tokenizer has ids up to {end_of(tokenizer) - 1:,}, but the model only {rows:,} rows: text tokens would be lost. Give "
            "the model and the tokenizer of one checkpoint"
        )
    missing = [token for token in (TURN_START, TURN_END, PADDING) if token not in known]
    if missing:
        raise ContractError(f"the tokenizer lacks {', '.join(missing)}; a Qwen tokenizer (ChatML) is needed")
    if AUDIO_START in known:
        raise ContractError(
            "this model has an audio vocabulary already; a vocabulary is grown once, so start from the text-only model"
        )


def new_row_structure(codec: Codec, initialisation: Initialisation, width: int, seed: int) -> torch.Tensor:
    """Standardised rows `(K × codebook_size, D)`: mean 0 and deviation 1 in every dimension (0.01 for `mean`)."""
    size = codec.num_codebooks * codec.codebook_size
    generator = torch.Generator().manual_seed(seed)
    if initialisation == "codebook":
        vectors = codec.codebook_vectors()
        if vectors is None:
            raise ContractError("this codec has no codebook geometry; use --initialisation gaussian")
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
            raise ContractError("the codebook's vectors are all the same; use --initialisation gaussian")
        parts.append((rows - rows.mean(0)) / deviation)
    return torch.cat(parts)


@torch.no_grad()
def fill_rows(weight: torch.Tensor, text_ids: int, vocabulary: AudioVocabulary, structure: torch.Tensor) -> None:
    """Set the rows of `weight` `(rows, D)` from `text_ids` on: specials at random, audio by structure, unused ones to the mean."""
    mean, deviation = _statistics(weight[:text_ids])
    special = torch.randn(
        vocabulary.first_id - text_ids, weight.shape[1], generator=torch.Generator().manual_seed(text_ids)
    )
    weight[text_ids : vocabulary.first_id] = (mean + deviation * special.to(weight.device)).to(weight.dtype)
    weight[vocabulary.first_id : vocabulary.end] = (mean + deviation * structure.to(weight.device)).to(weight.dtype)
    weight[vocabulary.end :] = mean.to(weight.dtype)


def _statistics(rows: torch.Tensor, at_once: int = 256) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation `(D,)`, in double precision, in slices that fit a cache: several times as fast as large ones."""
    mean, squares = torch.zeros(2, rows.shape[1], dtype=torch.float64, device=rows.device)
    # running sums: with a list of them, their small buffers would keep the allocator from using the slices' memory again (1.2 GB at 0.6B)
    for part in rows.split(at_once):
        mean += part.double().sum(0)
    mean /= len(rows)
    for part in rows.split(at_once):
        squares += (part.double() - mean).square().sum(0)
    return mean.float(), (squares / (len(rows) - 1)).sqrt().float()
