"""Any captioned or transcribed audio: a table beside the files, or Parquet with columns of audio and text.

The table is `metadata.csv` or `metadata.jsonl` in the form of the Hub's AudioFolder, with `file_name` relative to its folder and a
column of text; or any CSV or JSON (lines) file of that form.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

from alm.data.audio_names import below
from alm.data.csv_rows import csv_rows
from alm.data.example import CAPTION, TRANSCRIPT, Content, DataError, Example, ReadReport, clip_with_text
from alm.data.json_rows import json_rows, text_field
from alm.data.origins import clotho, freesound, librivox, meta_of, stem, youtube_of_name
from alm.data.parquet_rows import audio_of, is_parquet, parquet_rows

Kind = Literal["caption", "transcript"]
NamedAfter = Literal["nothing", "youtube", "freesound", "clotho", "librivox"]
_ORIGINS: dict[str, Callable[[str], list[str]]] = {
    "nothing": lambda name: [],
    "youtube": youtube_of_name,
    "freesound": freesound,
    "clotho": clotho,
    "librivox": lambda name: librivox(stem(name)),
}
TEXT_COLUMNS: dict[str, tuple[str, ...]] = {
    CAPTION: ("caption", "text"),
    TRANSCRIPT: ("text", "transcript", "transcription", "sentence"),
}
"""Columns of text that are looked for, in this order, where none is named."""


def examples(
    path: Path | str,
    report: ReadReport,
    *,
    audio: Path | str | None = None,
    split: str = "train",
    config: str | None = None,
    kind: Kind = "caption",
    text: str | None = None,
    file_name: str = "file_name",
    audio_column: str = "audio",
    named_after: NamedAfter = "nothing",
) -> Iterator[Example]:
    """One example per row, `id` `<file stem>:<row from 1>`. Texts are kept as they are; empty ones are dropped and counted.

    `path` is a folder with `metadata.csv` or `metadata.jsonl`, such a file, or Parquet (a folder, or an id of the Hub; `split` and
    `config` choose there). `kind` is what the text is; `text` names its column. `audio` is the folder that `file_name` is relative to
    (default: the table's). `named_after`: what the files are named after, so that test sets can be kept out. Raises `DataError` for
    a malformed row, naming the columns that are there.
    """
    rows = (
        _of_parquet(path, report, split, config, audio_column, kind, text)
        if is_parquet(path) and _table(Path(path)) is None
        else _of_table(_table(Path(path)) or Path(path), report, audio, file_name, kind, text)
    )
    for example_id, name, said, item in rows:
        if not said.strip():
            report.dropped["empty text"] += 1
            continue
        meta = meta_of(_ORIGINS[named_after](name), **({"file_name": name} if name else {}))
        yield clip_with_text(example_id, report.source, item, said, kind, meta)


_Rows = Iterator[tuple[str, str, str, Content]]


def _table(path: Path) -> Path | None:
    if not path.is_dir():
        return path if path.is_file() else None
    return next((path / name for name in ("metadata.csv", "metadata.jsonl") if (path / name).is_file()), None)


def _of_table(
    table: Path, report: ReadReport, audio: Path | str | None, file_name: str, kind: Kind, text: str | None
) -> _Rows:
    if table.is_dir():
        raise DataError(f"{table}: neither metadata.csv nor metadata.jsonl nor *.parquet in it")
    folder = Path(audio) if audio is not None else table.parent
    rows: Iterator[tuple[int, dict[str, Any]]] = (
        csv_rows(table, delimiter="\t" if table.suffix == ".tsv" else ",")
        if table.suffix in (".csv", ".tsv")
        else json_rows(table)
    )
    for number, row in rows:
        report.rows += 1
        name = text_field(row, file_name, table, number)
        if not name:
            raise DataError(f"{table}, row {number}: {file_name!r} is empty")
        said = text_field(row, _text_column(row, kind, text), table, number)
        yield f"{table.stem}:{number}", name, said, {"path": str(below(folder, name))}


def _of_parquet(
    path: Path | str,
    report: ReadReport,
    split: str,
    config: str | None,
    audio_column: str,
    kind: Kind,
    text: str | None,
) -> _Rows:
    wanted = (text,) if text else TEXT_COLUMNS[kind]
    for found in parquet_rows(path, [audio_column], report, split, config, optional=wanted):
        said = text_field(found.row, _text_column(found.row, kind, text), found.shard, found.number)
        item = audio_of(found, report, audio_column)
        if item is not None:
            yield found.id, str(item.get("path", "")), said, item


def _text_column(row: dict[str, Any], kind: Kind, wanted: str | None) -> str:
    names = (wanted,) if wanted else TEXT_COLUMNS[kind]
    return next((name for name in names if name in row), names[0])
