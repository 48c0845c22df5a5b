"""Rendered conversations to ids and labels, such that nothing a user writes becomes a control or audio token."""

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from os.path import commonpath
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

from alm.prompts import Piece
from alm.vocabulary import SPECIAL_TOKENS, AudioVocabulary

IGNORED = -100
"""Label of what the loss leaves out."""


class TrainingIds(NamedTuple):
    """One conversation for training: `labels` equals `input_ids` where the assistant speaks, `IGNORED` elsewhere."""

    input_ids: list[int]
    labels: list[int]


class TextEncoder:
    """Tokenises parts of a conversation as one text, those of users with control tokens' strings taken literally.

    `<|im_end|>` in a question is ten characters, not the end of the turn: the text is cut after its `<`, and the two sides are
    tokenised apart, so that no added token can match. Without such strings, the ids are those of the whole text.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        backend = tokenizer.backend_tokenizer
        # data sets ask the same questions thousands of times
        self._encode = lru_cache(1 << 16)(lambda text: backend.encode(text, add_special_tokens=False).ids)
        special = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
        literal = sorted({*special, *SPECIAL_TOKENS}, key=len, reverse=True)
        audio = r"<\|audio_[0-9]+_[0-9]+\|>"
        self._control = re.compile("|".join([*map(re.escape, literal), audio]))
        self._begin = commonpath([*literal, "<|audio_"])  # most texts lack even this, and are not searched

    def encode(self, parts: Iterable[tuple[str, bool]]) -> list[int]:
        """Ids of (text, trusted) parts joined; control tokens count in trusted parts only."""
        return [token for text in self._safe(parts) for token in self._encode(text)]

    def _safe(self, parts: Iterable[tuple[str, bool]]) -> Iterator[str]:
        """Texts to tokenise one by one, cut inside each control token's string of an untrusted part."""
        whole = ""
        for text, trusted in parts:
            start = 0
            for match in () if trusted or self._begin not in text else self._control.finditer(text):
                cut = match.start() + 1
                yield whole + text[start:cut]
                whole, start = "", cut
            whole += text[start:]
        if whole:
            yield whole


class Run(NamedTuple):
    """Neighbouring ids of one kind; `answer` where the assistant says them."""

    ids: list[int]
    answer: bool


def encode_pieces(
    pieces: Sequence[Piece], spans: Iterable[Sequence[int]], text: TextEncoder, vocabulary: AudioVocabulary
) -> Iterator[Run]:
    """Ids of `alm.prompts.render`'s pieces; `spans` are the ids of its audio pieces in order, start and end tokens are put around."""
    waiting = iter(spans)
    for run in _runs(pieces):
        if run[0].kind == "audio":
            yield Run([vocabulary.start_id, *next(waiting), vocabulary.end_id], run[0].answer)
        else:
            yield Run(text.encode((str(piece.value), piece.kind == "template") for piece in run), run[0].answer)


def with_labels(runs: Iterable[Run]) -> TrainingIds:
    """Runs joined, with their labels."""
    input_ids: list[int] = []
    labels: list[int] = []
    for ids, answer in runs:
        input_ids += ids
        labels += ids if answer else [IGNORED] * len(ids)
    return TrainingIds(input_ids, labels)


def _runs(pieces: Sequence[Piece]) -> Iterator[list[Piece]]:
    """Neighbouring texts of one speaker together: tokenised as one, as any engine does with the rendered template.

    A run ends where an answer begins or ends, so that a prompt's ids do not depend on the answer that follows.
    """
    run: list[Piece] = []
    for piece in pieces:
        if run and (piece.kind == "audio" or run[0].kind == "audio" or piece.answer != run[0].answer):
            yield run
            run = []
        run.append(piece)
    if run:
        yield run
