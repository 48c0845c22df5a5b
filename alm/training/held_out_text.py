"""Held-out text in the form it has in training, cut into pieces whose loss can be measured."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from alm.data.catalogue import read_source
from alm.data.example import DataError, ReadReport
from alm.data.packing import pack
from alm.encoding import IGNORED, TrainingIds, encode_pieces, with_labels
from alm.processing import AudioLanguageProcessor
from alm.prompts import render
from alm.training.sources import text_source

PIECE = 1024
"""Most tokens of context: a constant, so that the loss does not depend on how a run packs its rows."""
Row = dict[str, list[int]]


class HeldOutText(NamedTuple):
    """Text in packed rows like a trainer's (`input_ids`, `labels`, `seq_lengths`), how many tokens are scored, a digest of all."""

    source: str
    rows: list[Row]
    tokens: int
    digest: str

    @classmethod
    def read(cls, value: str, processor: AudioLanguageProcessor) -> "HeldOutText":
        """From what names text (`alm.training.sources.text_source`); longer texts are cut by `pieces`.

        Raises `DataError` where there is nothing to score.
        """
        limit = min(PIECE, processor.max_length or PIECE)
        conversations = (list(render(one.messages)) for one in read_source(text_source(value), ReadReport("text")))
        found = [
            piece
            for one in conversations
            for piece in pieces(
                with_labels(encode_pieces(one, [], processor.text_encoder, processor.vocabulary)), limit
            )
        ]
        if not found:
            raise DataError(f"{value} holds no text whose loss could be measured; every text in it is empty")
        packed = pack([len(piece.input_ids) for piece in found], limit)
        return cls(
            source=value,
            rows=[_row([found[number] for number in numbers]) for numbers in packed],
            tokens=sum(label != IGNORED for piece in found for label in piece.labels),
            digest=hashlib.sha256(json.dumps(found).encode()).hexdigest()[:16],
        )


def pieces(ids: TrainingIds, limit: int) -> Iterator[TrainingIds]:
    """Pieces of at most `limit` tokens (2 or more), each beginning with the last token of the one before.

    So every labelled token is scored once, whatever the limit, but the very first, which nothing is before. Pieces without labels are
    left out.
    """
    for start in range(0, len(ids.input_ids) - 1, limit - 1):
        labels = [IGNORED, *ids.labels[start + 1 : start + limit]]
        if any(label != IGNORED for label in labels):
            yield TrainingIds(ids.input_ids[start : start + limit], labels)


def _row(parts: Sequence[TrainingIds]) -> Row:
    return {
        "input_ids": [token for part in parts for token in part.input_ids],
        "labels": [label for part in parts for label in part.labels],
        "seq_lengths": [len(part.input_ids) for part in parts],
    }
