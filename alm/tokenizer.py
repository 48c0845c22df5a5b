"""A small Qwen-style tokenizer trained on the spot, for models that start from a configuration.

Byte-level BPE with Qwen's normaliser and pre-tokenisation, so that nothing else in the project notices the difference.
"""

import csv
import glob
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer
from transformers import Qwen2Tokenizer

from alm.data.example import DataError
from alm.prompts import PADDING, ROLES, TURN_END, TURN_START, multiple_choice_prompt
from codec.audio import AUDIO_SUFFIXES

MINIMUM_SIZE = 256 + 3  # every byte, and three control tokens: any text can be written


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> Qwen2Tokenizer:
    """Train byte-level BPE on `texts` to at most `vocab_size` entries, Qwen's three control tokens last.

    The same texts give the same tokenizer. Raises `DataError` where `vocab_size` cannot hold all bytes.
    """
    if vocab_size < MINIMUM_SIZE:
        raise DataError(f"a byte-level vocabulary needs at least {MINIMUM_SIZE} entries, got vocab_size {vocab_size}")
    qwen = Qwen2Tokenizer().backend_tokenizer
    blank = Tokenizer(BPE())
    blank.normalizer, blank.pre_tokenizer = qwen.normalizer, qwen.pre_tokenizer
    trainer = BpeTrainer(vocab_size=vocab_size - 3, initial_alphabet=sorted(ByteLevel.alphabet()), show_progress=False)
    blank.train_from_iterator([*ROLES, multiple_choice_prompt("", []), *texts], trainer)
    model = json.loads(blank.to_str())["model"]
    merges = [tuple(pair) if isinstance(pair, list) else tuple(pair.split(" ")) for pair in model["merges"]]
    first = len(model["vocab"])
    control = {token: first + i for i, token in enumerate((PADDING, TURN_START, TURN_END))}
    tokenizer = Qwen2Tokenizer(
        vocab={**model["vocab"], **control}, merges=merges, eos_token=TURN_END, pad_token=PADDING, unk_token=None
    )
    tokenizer.add_tokens([AddedToken(token, special=True, normalized=False) for token in control])
    return tokenizer


def read_texts(patterns: Iterable[str | Path]) -> Iterator[str]:
    """All texts of the files that the glob `patterns` match: strings in JSON and JSON lines, cells of CSV, lines of TXT.

    Names of audio files are left out. Raises `DataError` where a pattern matches nothing or a file is of another kind.
    """
    for pattern in patterns:
        paths = sorted(glob.glob(str(pattern), recursive=True))  # noqa: PTH207 (Path.glob refuses absolute patterns)
        if not paths:
            raise DataError(f"--texts {pattern}: no such file")
        for path in map(Path, paths):
            yield from (text for text in _texts(path) if text and not text.lower().endswith(AUDIO_SUFFIXES))


def _texts(path: Path) -> Iterator[str]:
    readers = {".json": _json_texts, ".jsonl": _json_lines_texts, ".csv": _csv_texts, ".txt": _line_texts}
    if path.suffix.lower() not in readers:
        raise DataError(f"{path}: texts are read from {', '.join(readers)} files")
    try:
        yield from readers[path.suffix.lower()](path)
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, csv.Error) as error:
        raise DataError(f"{path}: {error}") from error


def _json_texts(path: Path) -> Iterator[str]:
    return _strings(json.loads(path.read_text(encoding="utf-8")))


def _json_lines_texts(path: Path) -> Iterator[str]:
    for line in _line_texts(path):
        yield from _strings(json.loads(line))


def _csv_texts(path: Path) -> Iterator[str]:
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.reader(file):
            yield from row


def _line_texts(path: Path) -> Iterator[str]:
    with path.open(encoding="utf-8") as file:
        yield from (line.strip() for line in file if line.strip())


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _strings(item)
