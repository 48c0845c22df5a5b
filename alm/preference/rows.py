"""Rows of a preference data set as conversations whose audio is codes: read, checked, and refused by file and row."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from alm.data.example import Content, DataError, Message
from alm.data.json_rows import Row, json_rows
from alm.data.tokens import TokenStore

Result = TypeVar("Result")


def read_rows(file: str | Path, make: Callable[[Row], Result]) -> list[Result]:
    """`make` of each row of a JSON list or JSON lines. Raises `DataError`, with file and row, on what `make` refuses."""
    path = Path(file)
    made = [_made(path, number, row, make) for number, row in json_rows(path)]
    if not made:
        raise DataError(f"{path}: no rows in it")
    return made


def _made(path: Path, number: int, row: Row, make: Callable[[Row], Result]) -> Result:
    try:
        return make(row)
    except ValueError as error:  # DataError, LengthError, and ids that are not the vocabulary's
        raise DataError(f"{path}, row {number}: {error}") from error


def messages_of(value: Any, store: TokenStore | None) -> list[Message]:
    """A prompt: a text (one message of the user) or messages, their audio as codes. Raises `DataError`; the assistant must be next."""
    messages = [{"role": "user", "content": value}] if isinstance(value, str) else value
    if not isinstance(messages, list) or not messages or not all(isinstance(one, dict) for one in messages):
        raise DataError(f"'prompt' must be a text or a list of messages, got {value!r:.80}")
    if messages[-1].get("role") == "assistant":
        raise DataError("'prompt' ends with a message of the assistant; leave the answer out of it")
    return [{**one, "content": _content(one.get("content"), store)} for one in messages]


def answer_of(row: Row, key: str, store: TokenStore | None) -> Message:
    """What the assistant says in `row[key]`: a text, an audio item, a list of items, or a message of the assistant."""
    value = row.get(key)
    if isinstance(value, dict) and "role" in value:
        if value["role"] != "assistant":
            raise DataError(f"{key!r} is a message of {value['role']!r}; the assistant's is expected")
        value = value.get("content")
    elif isinstance(value, dict):
        value = [value]
    if not isinstance(value, str | list) or not value:
        raise DataError(f"{key!r} must be a text, an audio item, or a message of the assistant, got {value!r:.80}")
    return {"role": "assistant", "content": _content(value, store)}


def texts_of(row: Row, key: str) -> list[str] | None:
    """A list of texts, or None where the row has no such key. Raises `DataError` on anything else."""
    value = row.get(key)
    if value is None:
        return None
    if not isinstance(value, list) or not value or not all(isinstance(one, str) for one in value):
        raise DataError(f"{key!r} must be a list of texts with at least one, got {value!r:.80}")
    return value


def _content(content: Any, store: TokenStore | None) -> Any:
    return list(_items(content, store)) if isinstance(content, list) else content


def _items(items: Sequence[Any], store: TokenStore | None) -> Iterator[Any]:
    for item in items:
        audio = isinstance(item, dict) and item.get("type") == "audio"
        yield _with_codes(item, store) if audio else item


def _with_codes(item: Content, store: TokenStore | None) -> Content:
    if item.get("codes") is not None:
        return item
    if store is None:
        raise DataError("an audio item without codes needs a token store: --tokens FOLDER (recipes/tokenize_corpus.py)")
    return {"type": "audio", "codes": store.codes_of(item)}
