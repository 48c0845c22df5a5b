"""DPO's data: a prompt, the answer that is preferred and the one that is not, as ids of the processor."""

from functools import partial
from pathlib import Path

from datasets import Dataset

from alm.data.example import DataError, Message
from alm.data.json_rows import Row
from alm.data.tokens import TokenStore
from alm.encoding import IGNORED
from alm.preference.rows import answer_of, messages_of, read_rows
from alm.processing import AudioLanguageProcessor

COLUMNS = ("prompt_ids", "chosen_ids", "rejected_ids")
"""What TRL's collator reads."""


def read_pairs(
    file: str | Path, processor: AudioLanguageProcessor, store: TokenStore | None, max_length: int | None = None
) -> Dataset:
    """Pairs of JSON lines `{"prompt": …, "chosen": …, "rejected": …}` as columns of ids.

    A prompt is a text or messages; an answer a text, an audio item or a message. Prompt and answer together are the processor's
    `training_ids` up to the answer's last labelled id. Raises `DataError` with file and row, also for a pair beyond `max_length`:
    nothing is cut.
    """
    make = partial(pair_ids, processor=processor, store=store, max_length=max_length)
    return Dataset.from_list(read_rows(file, make))


def pair_ids(
    row: Row, processor: AudioLanguageProcessor, store: TokenStore | None = None, max_length: int | None = None
) -> dict[str, list[int]]:
    """One pair as ids, by `COLUMNS`."""
    prompt = messages_of(row.get("prompt"), store)
    prompt_ids = processor.encode_messages(prompt, add_generation_prompt=True)
    chosen, rejected = (
        _completion(prompt, answer_of(row, key, store), prompt_ids, processor) for key in ("chosen", "rejected")
    )
    if chosen == rejected:
        raise DataError("'chosen' and 'rejected' are the same: there is nothing to prefer")
    longest = len(prompt_ids) + max(len(chosen), len(rejected))
    if max_length is not None and longest > max_length:
        raise DataError(
            f"{longest} tokens, more than --max_length {max_length}; nothing is cut: raise it, or drop the row"
        )
    return dict(zip(COLUMNS, (prompt_ids, chosen, rejected), strict=True))


def _completion(
    prompt: list[Message], answer: Message, prompt_ids: list[int], processor: AudioLanguageProcessor
) -> list[int]:
    """Ids of the answer and its `<|im_end|>`; the line break behind it is the template's and no one's choice."""
    ids, labels = processor.training_ids([*prompt, answer])
    end = max(place for place, label in enumerate(labels) if label != IGNORED) + 1
    assert ids[: len(prompt_ids)] == prompt_ids  # the law of `training_ids`
    return ids[len(prompt_ids) : end]
