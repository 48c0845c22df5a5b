"""Examples and a token store → token sequences with labels, ready to be packed."""

import hashlib
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import groupby, islice
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from alm.data.example import Content, DataError, Example, Message
from alm.data.tokens import TokenStore
from alm.encoding import IGNORED, TrainingIds
from alm.processing import AudioLanguageProcessor, LengthError
from alm.vocabulary import AudioVocabulary, ContractError
from codec.base import Codes

TooLong = Literal["error", "skip"]
_SCHEMA = pa.schema([("input_ids", pa.list_(pa.int32())), ("labels", pa.list_(pa.int32())), ("source", pa.string())])
_ROWS_PER_BATCH = 1000


CodesOf = Callable[[str], Codes]


DESCRIPTION_CHARACTERS = 40
"""Answers longer than this describe the clip rather than answer one question about it."""


class _MissingError(Exception):
    """The store lacks a clip; the text is its path."""


class TokenSequence(NamedTuple):
    """One conversation: `input_ids` and `labels` `(L,)` int32, and the data set it came from."""

    input_ids: NDArray[np.int32]
    labels: NDArray[np.int32]
    source: str


@dataclass
class SequenceReport:
    """What became of the examples; nothing is dropped without being counted here."""

    examples: Counter[str] = field(default_factory=Counter)
    sequences: Counter[str] = field(default_factory=Counter)
    too_long: Counter[str] = field(default_factory=Counter)
    without_tokens: Counter[str] = field(default_factory=Counter)
    missing_audio: list[str] = field(default_factory=list)
    tokens: int = 0
    labelled: int = 0
    longest: int = 0

    def add(self, row: TokenSequence) -> None:
        """Count one sequence."""
        self.sequences[row.source] += 1
        self.tokens += len(row.input_ids)
        self.labelled += int((row.labels != IGNORED).sum())
        self.longest = max(self.longest, len(row.input_ids))


@dataclass(frozen=True)
class SequenceBuilder:
    """Turns examples into sequences of at most `max_length` tokens. Nothing is ever cut.

    `questions_per_conversation` above 1 puts up to so many questions about one clip, in seeded random order, behind a single copy of
    its audio (as many as fit); later ones see the earlier ones with their answers. 1 is the paper's: every question with its audio.
    `too_long`: what happens to a single question that does not fit, `error` or `skip` (counted). `max_missing`: the share of examples
    whose audio may lack in the store.
    """

    processor: AudioLanguageProcessor
    store: TokenStore
    max_length: int
    questions_per_conversation: int = 1
    too_long: TooLong = "error"
    seed: int = 0
    max_missing: float = 0.1

    def __post_init__(self) -> None:
        """Check the numbers, and the store against the model's contract."""
        if self.questions_per_conversation < 1 or self.max_length < 1 or self.too_long not in ("error", "skip"):
            raise DataError(
                "questions_per_conversation and max_length must be at least 1 and too_long error or skip, got "
                f"{self.questions_per_conversation}, {self.max_length} and {self.too_long!r}"
            )
        require_store(self.processor.vocabulary, self.store)

    def build(self, examples: Iterable[Example], report: SequenceReport | None = None) -> Iterator[TokenSequence]:
        """Sequences of `examples`; the same input gives the same output.

        Raises `DataError` on an example that is too long (with `too_long="error"`) or cannot be rendered, and at the end where more
        than `max_missing` of the examples lack their audio.
        """
        report = report or SequenceReport()
        codes = lru_cache(maxsize=256)(self.store.codes)
        for group in self._groups(examples):
            held: list[TrainingIds] = []
            for example in group:
                report.examples[example.source] += 1
                ids = self._ids(example, codes, bool(held), report)
                if held and ids is not None and not self._fits(held, ids):
                    yield _joined(held, example.source, report)
                    held = []
                    ids = self._ids(example, codes, False, report)
                if ids is not None:
                    held.append(ids)
            if held:
                yield _joined(held, group[0].source, report)
        self._check_missing(report)

    def _groups(self, examples: Iterable[Example]) -> Iterator[list[Example]]:
        """Examples that may share a conversation: of one data set, about one clip; alone where they do not lead with it."""
        if self.questions_per_conversation == 1:
            yield from ([example] for example in examples)
            return
        clips: dict[tuple[str, str], list[Example]] = {}
        for example in examples:
            clip = _leading_clip(example)
            if clip is None:
                yield [example]
            else:
                clips.setdefault((example.source, clip), []).append(example)
        for (source, clip), group in clips.items():
            random.Random(f"{self.seed} {source} {Path(clip).name}").shuffle(group)
            # descriptions last: what they say would answer the questions behind them without listening. Not by length among the
            # short ones: then a question's place would tell its answer's length
            yield sorted(group, key=_is_description)

    def _ids(self, example: Example, codes: CodesOf, follows: bool, report: SequenceReport) -> TrainingIds | None:
        """Ids of an example, without its leading audio where it follows another question; None where it is dropped."""
        messages = _without_audio(example.messages) if follows else example.messages
        try:
            messages = [_with_codes(message, codes) for message in messages]
        except _MissingError as error:
            report.without_tokens[example.source] += 1
            report.missing_audio.append(str(error))
            return None
        try:
            ids = self.processor.training_ids(messages)
            if len(ids.input_ids) <= self.max_length:
                return ids
            why = f"{len(ids.input_ids)} tokens, but sequences have at most {self.max_length}; raise --max_length"
        except LengthError as error:  # longer than the model's positions
            why = str(error)
        except DataError as error:
            raise DataError(f"{example.source} {example.id}: {error}") from error
        if self.too_long == "error":
            raise DataError(f"{example.source} {example.id}: {why}, or leave such examples out with --too_long skip")
        report.too_long[example.source] += 1
        return None

    def _fits(self, held: list[TrainingIds], more: TrainingIds) -> bool:
        total = sum(len(ids.input_ids) for ids in held) + len(more.input_ids)
        return len(held) < self.questions_per_conversation and total <= self.max_length

    def _check_missing(self, report: SequenceReport) -> None:
        lost, total = report.without_tokens.total(), report.examples.total()
        if lost > self.max_missing * total:
            raise DataError(
                f"{lost} of {total} examples lack their audio in token store {self.store.folder} (first: {report.missing_audio[0]}); "
                f"at most {self.max_missing:.0%} may. Run recipes/tokenize_corpus.py over the audio, or raise the limit with --max_missing"
            )


def require_store(vocabulary: AudioVocabulary, store: TokenStore) -> None:
    """Raise `ContractError`, with both sides, unless the store's codes are those the model was grown for."""
    contract = store.contract
    vocabulary.require_codec(contract["codec_fingerprint"], f"token store {store.folder}")
    for name in ("num_codebooks", "codebook_size"):
        if contract[name] != getattr(vocabulary, name):
            raise ContractError(
                f"token store {store.folder} has {name} {contract[name]}, the language model {getattr(vocabulary, name)}"
            )


def write_sequences(rows: Iterable[TokenSequence], path: Path) -> str:
    """Write sequences as one Arrow stream that `datasets.Dataset.from_file` maps into memory, whole or not at all.

    Returns a digest of them (SHA-256, 16 hexadecimal digits).
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    waiting = iter(rows)
    with pa.OSFile(str(partial), "wb") as file, pa.ipc.new_stream(file, _SCHEMA) as writer:
        while block := list(islice(waiting, _ROWS_PER_BATCH)):
            columns = [[row.input_ids for row in block], [row.labels for row in block], [row.source for row in block]]
            writer.write_batch(pa.record_batch(columns, schema=_SCHEMA))
    with partial.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()[:16]
    partial.replace(path)
    return found


def preview(row: TokenSequence, processor: AudioLanguageProcessor) -> str:
    """A sequence as text: audio as its length, what the loss sees between ⟦ and ⟧."""
    first, last = processor.vocabulary.first_id, processor.vocabulary.first_id + processor.vocabulary.size
    text = f"[{row.source}, {len(row.input_ids)} tokens, {int((row.labels != IGNORED).sum())} labelled] "

    def kind(pair: tuple[int, int]) -> tuple[bool, bool]:
        return pair[1] != IGNORED, first <= pair[0] < last

    for (labelled, audio), run in groupby(zip(row.input_ids.tolist(), row.labels.tolist(), strict=True), kind):
        ids = [token for token, _ in run]
        part = f"({len(ids)} audio tokens)" if audio else processor.tokenizer.decode(ids)
        text += f"⟦{part}⟧" if labelled else part
    return text


def _joined(held: list[TrainingIds], source: str, report: SequenceReport) -> TokenSequence:
    input_ids = np.concatenate([np.asarray(ids.input_ids, np.int32) for ids in held])
    labels = np.concatenate([np.asarray(ids.labels, np.int32) for ids in held])
    row = TokenSequence(input_ids, labels, source)
    report.add(row)
    return row


def _is_description(example: Example) -> bool:
    """Whether the assistant says more than a short answer."""
    said = (item for message in example.messages if message["role"] == "assistant" for item in message["content"])
    return sum(len(item.get("text", "")) for item in said) > DESCRIPTION_CHARACTERS


def _leading_clip(example: Example) -> str | None:
    """Path of the clip that the first message opens with, where that is the conversation's only audio."""
    first = example.messages[0]["content"]
    paths = example.audio_paths()
    leads = isinstance(first, list) and bool(first) and first[0]["type"] == "audio"
    return paths[0] if leads and len(paths) == 1 else None


def _without_audio(messages: list[Message]) -> list[Message]:
    """A conversation without the audio that its first message opens with."""
    return [{**messages[0], "content": messages[0]["content"][1:]}, *messages[1:]]


def _with_codes(message: Message, codes: CodesOf) -> Message:
    """A message with the store's codes in place of paths."""
    if isinstance(message["content"], str):
        return message
    return {**message, "content": [_item_with_codes(item, codes) for item in message["content"]]}


def _item_with_codes(item: Content, codes: CodesOf) -> Content:
    if item.get("type") != "audio":
        return item
    try:
        return {"type": "audio", "codes": codes(item["path"])}
    except DataError as error:
        raise _MissingError(str(item["path"])) from error
