"""Rendered conversations to ids and labels, such that nothing a user writes becomes a control or audio token."""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

from alm.prompts import Piece
from alm.vocabulary import SPECIAL_TOKENS, AudioVocabulary
from codec.base import Codes

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
        self._backend = tokenizer.backend_tokenizer
        special = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
        literal = sorted({*special, *SPECIAL_TOKENS}, key=len, reverse=True)
        audio = r"<\|audio_[0-9]+_[0-9]+\|>"
        self._control = re.compile("|".join([*map(re.escape, literal), audio]))

    def encode(self, parts: Iterable[tuple[str, bool]]) -> list[int]:
        """Ids of (text, trusted) parts joined; control tokens count in trusted parts only."""
        ids: list[int] = []
        for text in self._safe(parts):
            ids += self._backend.encode(text, add_special_tokens=False).ids
        return ids

    def _safe(self, parts: Iterable[tuple[str, bool]]) -> Iterator[str]:
        """Texts to tokenise one by one, cut inside each control token's string of an untrusted part."""
        whole = ""
        for text, trusted in parts:
            start = 0
            for match in () if trusted else self._control.finditer(text):
                cut = match.start() + 1
                yield whole + text[start:cut]
                whole, start = "", cut
            whole += text[start:]
        if whole:
            yield whole


def encode_pieces(
    pieces: Sequence[Piece], spans: Sequence[Codes], text: TextEncoder, vocabulary: AudioVocabulary
) -> TrainingIds:
    """Ids and labels of `alm.prompts.render`'s pieces; `spans` are the codes `(K, T)` of its audio pieces in order."""
    waiting = iter(spans)
    input_ids: list[int] = []
    labels: list[int] = []
    for run in _runs(pieces):
        if run[0].kind == "audio":
            ids = [vocabulary.start_id, *vocabulary.codes_to_ids(next(waiting)).tolist(), vocabulary.end_id]
        else:
            ids = text.encode((str(piece.value), piece.kind == "template") for piece in run)
        input_ids += ids
        labels += ids if run[0].answer else [IGNORED] * len(ids)
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
