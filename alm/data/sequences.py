"""Examples and a token store → token sequences with labels, ready to be packed."""

import random
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any, Literal, get_args

from alm.data.example import Content, DataError, Example, Message
from alm.data.sequence_table import ClipPart, CompactSequence
from alm.data.tokens import TokenStore
from alm.encoding import Run, encode_pieces
from alm.processing import AudioLanguageProcessor
from alm.prompts import render
from alm.vocabulary import AudioVocabulary, ContractError

TooLong = Literal["error", "skip", "crop"]
DESCRIPTION_CHARACTERS = 40
"""Answers longer than this describe the clip rather than answer one question about it."""


class _MissingError(Exception):
    """The store lacks a clip; the text is its name."""


COUNTED = ("examples", "sequences", "too_long", "cropped", "without_tokens")


@dataclass
class SequenceReport:
    """What became of the examples; nothing is dropped without being counted here."""

    examples: Counter[str] = field(default_factory=Counter)
    sequences: Counter[str] = field(default_factory=Counter)
    too_long: Counter[str] = field(default_factory=Counter)
    cropped: Counter[str] = field(default_factory=Counter)
    without_tokens: Counter[str] = field(default_factory=Counter)
    missing_audio: list[str] = field(default_factory=list)
    tokens: int = 0
    labelled: int = 0
    longest: int = 0

    def add(self, row: CompactSequence) -> None:
        """Count one sequence."""
        self.sequences[row.source] += 1
        self.tokens += row.length
        self.labelled += row.labels
        self.longest = max(self.longest, row.length)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "SequenceReport":
        """Read back a report that was stored as JSON."""
        counted = {name: Counter(data[name]) for name in COUNTED}
        return cls(**{**data, **counted})

    def merge(self, other: "SequenceReport") -> None:
        """Add another report's counts."""
        for name in COUNTED:
            getattr(self, name).update(getattr(other, name))
        self.missing_audio += other.missing_audio
        self.tokens, self.labelled = self.tokens + other.tokens, self.labelled + other.labelled
        self.longest = max(self.longest, other.longest)


@dataclass
class SequenceBuilder:
    """Turns examples into sequences of at most `max_length` tokens. Nothing is cut unless it is asked for.

    `questions_per_conversation` above 1 puts up to so many questions about one clip, in seeded random order, behind a single copy of
    its audio (as many as fit); later ones see the earlier ones with their answers. 1 is the paper's: every question with its audio.
    `too_long`: what happens to a single question that does not fit: `error`, `skip`, or `crop`, which cuts the end of the longest clip
    that is heard at a frame's boundary, and skips where that is not enough (what the assistant says is never cut: it would learn to
    break off); all counted. `max_missing`: the share of examples whose audio may lack in the store.
    """

    processor: AudioLanguageProcessor
    store: TokenStore | None
    max_length: int
    questions_per_conversation: int = 1
    too_long: TooLong = "error"
    seed: int = 0
    max_missing: float = 0.1
    clips: list[ClipPart] = field(default_factory=list)
    """Clips that the sequences made so far use, by their numbers (`alm.data.sequence_table`)."""

    def __post_init__(self) -> None:
        """Check the numbers, and the store against the model's contract."""
        if self.questions_per_conversation < 1 or self.max_length < 1 or self.too_long not in get_args(TooLong):
            raise DataError(
                "questions_per_conversation and max_length must be at least 1 and too_long error, skip or crop, got "
                f"{self.questions_per_conversation}, {self.max_length} and {self.too_long!r}"
            )
        if self.store is not None:
            require_store(self.processor.vocabulary, self.store)
        self._numbers: dict[ClipPart, int] = {}
        self._frames: dict[str, int] = {}

    def build(self, examples: Iterable[Example], report: SequenceReport | None = None) -> Iterator[CompactSequence]:
        """Sequences of `examples`; the same input gives the same output.

        Raises `DataError` on an example that is too long (with `too_long="error"`) or cannot be rendered, and at the end where more
        than `max_missing` of the examples lack their audio.
        """
        report = report or SequenceReport()
        for group in self._groups(examples):
            held: list[list[Run]] = []
            for example in group:
                report.examples[example.source] += 1
                runs = self._runs(example, bool(held), report)
                if held and runs is not None and not self._fits(held, runs):
                    yield self._joined(held, example.source, report)
                    held = []
                    runs = self._runs(example, False, report)
                if runs is not None:
                    held.append(runs)
            if held:
                yield self._joined(held, group[0].source, report)
        self._check_missing(report)

    def length(self, runs: Iterable[Run]) -> int:
        """Tokens of compact runs, each clip spelled out."""
        books = self.processor.vocabulary.num_codebooks
        clips = [-1 - token for run in runs for token in run.ids if token < 0]
        return sum(len(run.ids) for run in runs) + sum(self.clips[clip].frames * books - 1 for clip in clips)

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

    def _runs(self, example: Example, follows: bool, report: SequenceReport) -> list[Run] | None:
        """Compact ids of an example, without its leading audio where it follows another question; None where it is dropped."""
        messages = _without_audio(example.messages) if follows else example.messages
        try:
            pieces = list(render(messages))
            clips = [[-1 - self._number(piece.value)] for piece in pieces if isinstance(piece.value, dict)]
        except _MissingError as error:
            report.without_tokens[example.source] += 1
            report.missing_audio.append(str(error))
            return None
        except DataError as error:
            raise DataError(f"{example.source} {example.id}: {error}") from error
        runs = list(encode_pieces(pieces, clips, self.processor.text_encoder, self.processor.vocabulary))
        if not any(run.answer for run in runs):
            raise DataError(
                f"{example.source} {example.id}: a conversation for training needs a message of the assistant, got none"
            )
        length, limit = self.length(runs), self._limit
        if length <= limit:
            return runs
        if self.too_long == "error":
            raise DataError(
                f"{example.source} {example.id}: {length} tokens, but sequences have at most {limit}; raise --max_length (the model "
                f"takes {self.processor.max_length or 'any length'}), or leave such examples out "
                "with --too_long skip, their clips' ends with --too_long crop"
            )
        if self.too_long == "crop" and (cropped := self._cropped(runs, length - limit)) is not None:
            report.cropped[example.source] += 1
            return cropped
        report.too_long[example.source] += 1
        return None

    def _cropped(self, runs: list[Run], excess: int) -> list[Run] | None:
        """Runs whose longest heard clip is shorter by at least `excess` tokens; None where no frame of it would be left."""
        heard = [-1 - token for run in runs if not run.answer for token in run.ids if token < 0]
        longest = max(heard, key=lambda clip: self.clips[clip].frames, default=None)
        if longest is None:
            return None
        part, gone = self.clips[longest], -(-excess // self.processor.vocabulary.num_codebooks)
        if part.frames <= gone:
            return None
        number = self._number_of(ClipPart(part.key, part.frames - gone))
        at = next(n for n, run in enumerate(runs) if not run.answer and -1 - longest in run.ids)
        ids = [-1 - number if token == -1 - longest else token for token in runs[at].ids]
        return [*runs[:at], Run(ids, False), *runs[at + 1 :]]

    def _number(self, item: Content) -> int:
        """The number of a clip among those used so far. Raises `_MissingError` where the store lacks it."""
        if self.store is None:
            raise DataError("its audio needs a token store, and none is given")
        try:
            key = self.store.key_of_item(item)
        except DataError as error:
            raise _MissingError(str(item.get("path") or error)) from error
        if key not in self._frames:
            self._frames[key] = self.store.frames_by_key(key)
        return self._number_of(ClipPart(key, self._frames[key]))

    def _number_of(self, part: ClipPart) -> int:
        if part not in self._numbers:
            self._numbers[part] = len(self.clips)
            self.clips.append(part)
        return self._numbers[part]

    def _fits(self, held: list[list[Run]], more: list[Run]) -> bool:
        total = sum(map(self.length, held)) + self.length(more)
        return len(held) < self.questions_per_conversation and total <= self._limit

    @property
    def _limit(self) -> int:
        """Most tokens of a sequence: what was asked for, and what the model takes."""
        return min(self.max_length, self.processor.max_length or self.max_length)

    def _joined(self, held: list[list[Run]], source: str, report: SequenceReport) -> CompactSequence:
        runs = [run for some in held for run in some]
        answers = [run for run in runs if run.answer]
        row = CompactSequence(
            ids=[token for run in runs for token in run.ids],
            labelled=[run.answer for run in runs for _ in run.ids],
            length=self.length(runs),
            labels=self.length(answers),
            source=source,
        )
        report.add(row)
        return row

    def _check_missing(self, report: SequenceReport) -> None:
        lost, total = report.without_tokens.total(), report.examples.total()
        if lost > self.max_missing * total:
            raise DataError(
                f"{lost} of {total} examples lack their audio in the token store (first: {report.missing_audio[0]}); "
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


def preview(row: CompactSequence, clips: Sequence[ClipPart], processor: AudioLanguageProcessor) -> str:
    """A sequence as text: audio as the clip it is, what the loss sees between ⟦ and ⟧."""
    text = f"[{row.source}, {row.length} tokens, {row.labels} labelled] "
    for (labelled, audio), run in groupby(zip(row.ids, row.labelled, strict=True), lambda pair: (pair[1], pair[0] < 0)):
        ids = [token for token, _ in run]
        part = (
            "".join(f"(clip {clips[-1 - n].key[:8]}, {clips[-1 - n].frames} frames)" for n in ids)
            if audio
            else processor.tokenizer.decode(ids)
        )
        text += f"⟦{part}⟧" if labelled else part
    return text.replace("⟧⟦", "")


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
