"""MMAR: 1,000 multiple-choice questions over speech, sound, music and their mixtures.

Two releases are read, told apart by content: `MMAR-meta.json` (a JSON list; what the Hub's `BoJack/MMAR` serves) and
`MMAR-meta.jsonl` (JSON lines). Rows carry `id, audio_path, question, choices, answer, modality, category, sub-category, language`
and more (https://github.com/ddlBoJack/MMAR).

Texts are kept bit for bit, dirt included: empty choices, outer blanks, "(A) " prefixes. The official rule and the prompt want
them so; `alm.scoring.choices` looks through the dirt where a choice has to be recognised.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from alm.data.choice_rows import choices_field
from alm.data.example import DataError
from alm.data.json_rows import Row, json_rows, text_field

HUB_ID, HUB_FILE, HUB_AUDIO = "BoJack/MMAR", "MMAR-meta.json", "mmar-audio.tar.gz"
SUB_CATEGORY_KEYS = ("sub-category", "sub_category", "subcategory")


@dataclass(frozen=True)
class MmarItem:
    """One question. `choices` and `answer` are the file's own texts; `language` is None where the clip has no speech."""

    id: str
    audio_path: str
    question: str
    choices: tuple[str, ...]
    answer: str
    modality: str
    category: str
    sub_category: str
    language: str | None

    @property
    def groups(self) -> dict[str, str]:
        """The fields by which accuracy is broken down."""
        return {"modality": self.modality, "category": self.category, "sub_category": self.sub_category}


@dataclass(frozen=True)
class MmarData:
    """The questions in file order, and the SHA-256 of the file (releases differ in rows, so a result without it means little)."""

    items: tuple[MmarItem, ...]
    sha256: str


def read(metadata: Path | str) -> MmarData:
    """Read either release. Raises `DataError`, with file and row, for a missing field, no answer, a repeated id or no choices."""
    path = Path(metadata)
    items: dict[str, MmarItem] = {}
    for number, row in json_rows(path):
        item = _item(row, path, number)
        if not item.answer.strip():
            raise DataError(f"{path}, row {number}: 'answer' is empty; by the official rule any text would be right")
        if item.id in items:
            raise DataError(f"{path}, row {number}: id {item.id!r} occurs twice; predictions could not be told apart")
        items[item.id] = item
    if not items:
        raise DataError(f"{path}: no questions in it; a JSON list or JSON lines of MMAR rows expected")
    return MmarData(tuple(items.values()), hashlib.sha256(path.read_bytes()).hexdigest())


def _item(row: Row, path: Path, number: int) -> MmarItem:
    def text(key: str) -> str:
        return text_field(row, key, path, number)

    sub_category = next((row[key] for key in SUB_CATEGORY_KEYS if row.get(key)), None)
    language = row.get("language")
    return MmarItem(
        id=text("id"),
        audio_path=text("audio_path"),
        question=text("question"),
        choices=choices_field(row.get("choices"), path, number),
        answer=text("answer"),
        modality=str(row.get("modality") or "none"),
        category=str(row.get("category") or "none"),
        sub_category=str(sub_category or "none"),
        language=None if language is None else str(language),
    )
