"""Holding a checkpoint to its vocabulary contract: every part that two runs must agree on, each fault with its cure.

The checks read facts (configurations, tokenizer, shapes of tensors), not weights: they take seconds at any size, and the same ones serve a
model in memory, a folder at load (`alm.checkpoint`) and the doctor (`alm.doctor`).
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from alm.prompts import CHAT_TEMPLATE
from alm.vocabulary import AUDIO_END, AUDIO_PLACEHOLDER, AUDIO_START, AudioVocabulary, ContractError, digest

ROW_MULTIPLE = 64
"""Tensor cores and tensor-parallel engines want it."""
GROW_AGAIN = "grow the text-only model again with recipes/extend_vocabulary.py"
RESTORE = "restore the file from the checkpoint that was trained, or its Hub revision"


class Fault(NamedTuple):
    """What is wrong with which field, and what to do about it."""

    field: str
    problem: str
    cure: str

    def __str__(self) -> str:
        return f"{self.field}: {self.problem}. Cure: {self.cure}"


@dataclass
class Facts:
    """What the checks look at. `rows` holds the rows of `embedding` and, where it is a matrix of its own, of `output head`."""

    config: dict[str, Any]
    generation: dict[str, Any]
    tokenizer: PreTrainedTokenizerBase
    rows: dict[str, int]

    @classmethod
    def of(cls, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> "Facts":
        """Facts of a model in memory."""
        embedding, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
        named = {"embedding": embedding} | ({} if head is embedding else {"output head": head})
        # ZeRO-3 leaves an empty local shape
        rows = {name: int(getattr(weight, "ds_shape", weight.shape)[0]) for name, weight in named.items()}
        generation = model.generation_config.to_dict() if model.generation_config is not None else {}
        return cls(model.config.to_dict(), generation, tokenizer, rows)


def verify_contract(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, vocabulary: AudioVocabulary) -> None:
    """Raise `ContractError` unless model and tokenizer in memory are what the vocabulary says."""
    require_no_faults(faults(Facts.of(model, tokenizer), vocabulary), "the model in memory")


def require_no_faults(found: Iterable[Fault], what: str) -> None:
    """Raise `ContractError` that lists every fault, where there is one."""
    if lines := [f"\n- {fault}" for fault in found]:
        raise ContractError(f"{what} breaks its vocabulary contract:{''.join(lines)}")


def faults(facts: Facts, vocabulary: AudioVocabulary) -> Iterator[Fault]:
    """Everything in which the facts differ from the contract, all of it rather than the first."""
    yield from _tokenizer_faults(facts.tokenizer, vocabulary)
    yield from template_faults(facts.tokenizer.chat_template, vocabulary)
    yield from _stop_faults(facts, vocabulary)
    yield from _row_faults(facts, vocabulary)


def tokenizer_hash(tokenizer: PreTrainedTokenizerBase) -> str:
    """16 hexadecimal digits over (id, token) in the order of ids and the merges in theirs: what decides the ids of a text."""
    ordered = sorted((number, token) for token, number in tokenizer.get_vocab().items())
    merges = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    # older versions of tokenizers write a pair as one string
    pairs = [pair.split(" ") if isinstance(pair, str) else list(pair) for pair in merges]
    return hashlib.sha256(json.dumps([ordered, pairs]).encode()).hexdigest()[:16]


def _tokenizer_faults(tokenizer: PreTrainedTokenizerBase, vocabulary: AudioVocabulary) -> Iterator[Fault]:
    known = tokenizer.get_vocab()
    expected = dict(zip(vocabulary.tokens(), range(vocabulary.first_id, vocabulary.end), strict=True))
    expected |= {
        AUDIO_START: vocabulary.start_id,
        AUDIO_END: vocabulary.end_id,
        AUDIO_PLACEHOLDER: vocabulary.placeholder_id,
    }
    moved = [(token, number) for token, number in expected.items() if known.get(token) != number]
    if moved:
        token, number = moved[0]
        rest = f" and {len(moved) - 1:,} more" if len(moved) > 1 else ""
        yield Fault(
            "tokenizer ids",
            f"the tokenizer gives {token} the id {known.get(token)}, the contract {number}{rest}",
            RESTORE,
        )
    elif (found := tokenizer_hash(tokenizer)) != vocabulary.tokenizer_hash:
        yield Fault(
            "tokenizer_hash",
            f"tokens, their order or the merges changed: hash {found}, the contract has {vocabulary.tokenizer_hash}",
            RESTORE,
        )


def template_faults(template: str | None, vocabulary: AudioVocabulary) -> Iterator[Fault]:
    """Whether the template that a checkpoint holds, its contract and this version of the project are one."""
    found, ours = digest(template), digest(CHAT_TEMPLATE)
    if not found == vocabulary.chat_template_hash == ours:
        yield Fault(
            "chat_template_hash",
            f"the chat template has hash {found}, the contract {vocabulary.chat_template_hash}, and this version of the project "
            f"renders {ours}; the three must be one",
            "restore the checkpoint's chat_template.jinja",
        )


def _stop_faults(facts: Facts, vocabulary: AudioVocabulary) -> Iterator[Fault]:
    if vocabulary.pad_id == vocabulary.stop_id:
        yield Fault(
            "pad_id", f"the padding is the stop token ({vocabulary.stop_id}): it would never be learned", GROW_AGAIN
        )
    tokenizer = facts.tokenizer
    stops = {
        "tokenizer eos_token": tokenizer.eos_token_id,
        "config.json eos_token_id": facts.config.get("eos_token_id"),
        "generation_config.json eos_token_id": facts.generation.get("eos_token_id"),
    }
    pads = {
        "tokenizer pad_token": tokenizer.pad_token_id,
        "config.json pad_token_id": facts.config.get("pad_token_id"),
        "generation_config.json pad_token_id": facts.generation.get("pad_token_id"),
    }
    for field, value in stops.items():
        if value not in (vocabulary.stop_id, [vocabulary.stop_id]):
            yield Fault(field, f"{value}, but generation stops at {vocabulary.stop_id} alone", RESTORE)
    for field, value in pads.items():
        if value != vocabulary.pad_id:
            same = ", which is the stop token" if value == vocabulary.stop_id else ""
            yield Fault(field, f"{value}{same}, but batches are padded with {vocabulary.pad_id}", RESTORE)


def _row_faults(facts: Facts, vocabulary: AudioVocabulary) -> Iterator[Fault]:
    if vocabulary.rows < vocabulary.end or facts.config.get("vocab_size") != vocabulary.rows:
        yield Fault(
            "config.json vocab_size",
            f"{facts.config.get('vocab_size')}, but the contract has {vocabulary.rows} rows, of which tokens need {vocabulary.end}",
            RESTORE,
        )
    for name, rows in facts.rows.items():
        if rows != vocabulary.rows:
            yield Fault(
                f"rows of the {name}", f"the {name} has {rows} rows, the contract {vocabulary.rows}", GROW_AGAIN
            )
    tied = "output head" not in facts.rows
    if tied != vocabulary.tied or facts.config.get("tie_word_embeddings") != vocabulary.tied:
        words = {True: "one matrix (tied)", False: "two matrices (untied)"}
        yield Fault(
            "tie_word_embeddings",
            f"embedding and output head are {words[tied]} and config.json says {facts.config.get('tie_word_embeddings')}, but the "
            f"model was grown with {words[vocabulary.tied]}",
            "restore the weights and config.json; untying happens when the embedding is trained through peft's modules_to_save: use "
            "alm.adapters, which trains new rows only",
        )
