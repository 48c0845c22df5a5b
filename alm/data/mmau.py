"""MMAU: test-mini (1,000 questions with answers) and test (9,000, answers withheld) over sound, music and speech.

The form of the authors' repository is a JSON list (`mmau-test-mini.json`; https://github.com/Sakshi113/MMAU): `id, audio_id, question,
choices, answer, dataset, task, split, category, sub-category, difficulty`. Read as well, told apart by content: JSON lines; Parquet
files or folders of the Hub's copies, in which the question is called `instruction`, the audio lies in the row, the other columns may
be a JSON text `other_attributes`, and choices and answer may carry "(A) " prefixes or be one JSON text.

Releases differ in questions and answers: of "v05.15.25" (last edit 2025-08-09) and the one before, 258 of 894 common rows differ. A
result without the file's hash cannot be compared.

Texts are kept bit for bit, dirt included, as in `alm.data.mmar`.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alm.data.choice_rows import choices_field
from alm.data.example import DataError
from alm.data.json_rows import Row, json_rows, text_field

HUB_ID, SPACE = "gamma-lab-umd/MMAU-test-mini", "https://huggingface.co/spaces/sonalkum/MMAU-Eval"
FIELDS = (
    "id",
    "audio_id",
    "question",
    "choices",
    "answer",
    "dataset",
    "task",
    "split",
    "category",
    "sub-category",
    "difficulty",
)
"""The columns of the authors' file; a submission has them all."""
RENAMED = {
    "instruction": "question",
    "WavPath": "audio_id",
    "sub_category": "sub-category",
    "subcategory": "sub-category",
}
"""Names in copies → the authors'."""
AUDIO_COLUMNS = ("context", "audio")


@dataclass(frozen=True)
class MmauItem:
    """One question. `choices` and `answer` are the file's own texts; `answer` is empty where it is withheld."""

    id: str
    audio_id: str
    question: str
    choices: tuple[str, ...]
    answer: str
    task: str
    category: str
    sub_category: str
    difficulty: str

    @property
    def groups(self) -> dict[str, str]:
        """The fields by which accuracy is broken down; the modality is what the file calls the task."""
        return {
            "modality": self.task,
            "category": self.category,
            "sub_category": self.sub_category,
            "difficulty": self.difficulty,
        }


@dataclass(frozen=True)
class MmauData:
    """The questions in file order, their rows in the authors' form, and a SHA-256: of the file, or of Parquet's rows without audio."""

    items: tuple[MmauItem, ...]
    rows: tuple[Row, ...]
    sha256: str

    @property
    def withheld(self) -> bool:
        """Whether no row has an answer, as in the full test set."""
        return not any(item.answer for item in self.items)


def read(data: Path | str, audio_folder: Path | str) -> MmauData:
    """Read any of the forms; the audio of Parquet rows is written to `audio_folder` as it is, unless it is there already.

    Raises `DataError`, with file and row, for a missing field, a repeated id or no choices, and where only some answers are withheld.
    """
    path = Path(data)
    parquet = path.is_dir() or path.suffix == ".parquet"
    rows = list(_parquet_rows(path, Path(audio_folder)) if parquet else _json_rows(path))
    items: dict[str, MmauItem] = {}
    for number, row in enumerate(rows, start=1):
        item = _item(row, path, number)
        if item.id in items:
            raise DataError(f"{path}, row {number}: id {item.id!r} occurs twice; predictions could not be told apart")
        items[item.id] = item
    if not items:
        raise DataError(f"{path}: no questions in it; a JSON list, JSON lines or Parquet of MMAU rows expected")
    answered = sum(bool(item.answer.strip()) for item in items.values())
    if 0 < answered < len(items):
        raise DataError(
            f"{path}: {len(items) - answered} of {len(items)} answers are empty, by the official rule right whatever is said; "
            "give all answers (test-mini) or none (the full test)"
        )
    canonical = json.dumps(rows, sort_keys=True).encode() if parquet else path.read_bytes()
    return MmauData(tuple(items.values()), tuple(rows), hashlib.sha256(canonical).hexdigest())


def _json_rows(path: Path) -> Iterator[Row]:
    for _, row in json_rows(path):
        yield _named(row, path)


def _parquet_rows(path: Path, audio_folder: Path) -> Iterator[Row]:
    import pyarrow.parquet as pq

    shards = sorted(path.rglob("*.parquet")) if path.is_dir() else [path]
    if not shards:
        raise DataError(f"{path}: a folder without Parquet files; give the .json, a .parquet or a folder of them")
    for shard in shards:
        try:
            table = pq.ParquetFile(shard, buffer_size=1 << 20)
        except (OSError, ValueError) as error:
            raise DataError(f"{shard}: cannot be read as Parquet ({error})") from error
        for batch in table.iter_batches(16):
            for row in batch.to_pylist():
                named = _named(row, shard)
                audio = next((row[column] for column in AUDIO_COLUMNS if row.get(column) is not None), None)
                yield {**named, "audio_id": _written(audio, named, audio_folder)}


def _named(row: Row, path: Path) -> Row:
    """The row in the authors' names, without its audio; nested columns brought up."""
    nested = row.get("other_attributes")
    if isinstance(nested, str):
        try:
            nested = json.loads(nested)
        except json.JSONDecodeError as error:
            raise DataError(f"{path}: 'other_attributes' is text but not JSON ({error.msg})") from error
    flat = {**(nested or {}), **row}
    found = {RENAMED.get(key, key): value for key, value in flat.items()}
    return {key: found[key] for key in FIELDS if key in found}


def _written(audio: Any, row: Row, folder: Path) -> str:
    """The name below `folder` of the clip of a Parquet row; its bytes are written there once, through a temporary file."""
    if not isinstance(audio, dict) or not audio.get("bytes"):
        return str(row.get("audio_id") or (audio or {}).get("path") or f"{row.get('id')}.wav")
    name = (
        f"{row.get('id')}.wav"  # libsndfile tells by content: 46 clips are MP3 under this name in the data set itself
    )
    target = folder / name
    if not target.is_file() or target.stat().st_size != len(audio["bytes"]):
        folder.mkdir(parents=True, exist_ok=True)
        temporary = target.with_suffix(".tmp")
        temporary.write_bytes(audio["bytes"])
        temporary.replace(target)
    return name


def _item(row: Row, path: Path, number: int) -> MmauItem:
    def text(key: str) -> str:
        return text_field(row, key, path, number)

    row["choices"] = list(choices_field(row.get("choices"), path, number))
    return MmauItem(
        id=text("id"),
        audio_id=text("audio_id"),
        question=text("question"),
        choices=tuple(row["choices"]),
        answer=str(row.get("answer") or ""),
        task=_label(row.get("task")),
        category=_label(row.get("category")),
        sub_category=_label(row.get("sub-category")),
        difficulty=_label(row.get("difficulty")).lower(),
    )


def _label(value: Any) -> str:
    """A group's name; 13 rows of test-mini have the category `["Reasoning"]`, as text."""
    text = str(value or "none")
    return text[2:-2] if text.startswith('["') and text.endswith('"]') and text.count('"') == 2 else text
