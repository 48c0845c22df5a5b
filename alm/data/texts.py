"""Text alone, so that a model keeps its language while it learns audio: conversations or plain text, from JSON lines, text files, Parquet.

A row of JSON, JSON lines or Parquet has `messages` (`{"role", "content"}`, the Hub's chat form) or a column of text; a `.txt` file has one
document a paragraph (paragraphs are apart by an empty line).
"""

from collections.abc import Iterator
from pathlib import Path

from alm.data.example import DataError, Example, Message, ReadReport
from alm.data.json_rows import Row, json_rows, read_text
from alm.data.parquet_rows import is_parquet, parquet_rows

ROLES = ("system", "user", "assistant")


def examples(
    path: Path | str, report: ReadReport, *, text: str = "text", split: str = "train", config: str | None = None
) -> Iterator[Example]:
    """One example per row or paragraph; `id` is `<file stem>:<number from 1>`. `text` names the column of plain text.

    `path` is a file, or Parquet (a folder, or an id of the Hub; `split` and `config` choose there).

    Plain text becomes what the assistant says without being asked: all of it is learned. Empty texts and conversations in which the
    assistant says nothing are dropped and counted. Raises `DataError` for a malformed row, with file and row.
    """
    for file, number, row in _rows(path, report, text, split, config):
        messages = [_said(row)] if isinstance(row, str) else _messages(row, text, file, number)
        said = [message["content"][0]["text"] for message in messages if message["role"] == "assistant"]
        if not said or not all(one.strip() for one in said):
            report.dropped["empty text"] += 1
            continue
        yield Example(f"{file.stem}:{number}", report.source, messages)


def _rows(
    path: Path | str, report: ReadReport, text: str, split: str, config: str | None
) -> Iterator[tuple[Path, int, Row | str]]:
    """Rows and paragraphs with their file and number, counted."""
    if is_parquet(path):
        for found in parquet_rows(path, [], report, split, config, optional=["messages", text]):
            given = {name: value for name, value in found.row.items() if value is not None}
            yield Path(found.shard), found.number, given
        return
    file = Path(path)
    for number, row in enumerate(_paragraphs(file), start=1) if file.suffix == ".txt" else json_rows(file):
        report.rows += 1
        yield file, number, row


def _paragraphs(file: Path) -> Iterator[str]:
    for paragraph in read_text(file).split("\n\n"):
        if paragraph.strip():
            yield paragraph.strip("\n")


def _messages(row: Row, column: str, file: Path, number: int) -> list[Message]:
    if "messages" not in row:
        if not isinstance(row.get(column), str):
            raise DataError(
                f"{file}, row {number}: neither messages nor a text in column {column!r}, only {', '.join(row)}"
            )
        return [_said(row[column])]
    messages = row["messages"]
    if not isinstance(messages, list) or not all(_is_message(message) for message in messages):
        raise DataError(
            f"{file}, row {number}: messages must be a list of a role ({', '.join(ROLES)}) and a text content each"
        )
    return [_said(message["content"], message["role"]) for message in messages]


def _is_message(message: object) -> bool:
    return isinstance(message, dict) and message.get("role") in ROLES and isinstance(message.get("content"), str)


def _said(text: str, role: str = "assistant") -> Message:
    return {"role": role, "content": [{"type": "text", "text": text}]}
