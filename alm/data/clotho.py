"""Clotho 2.1: five captions of each of 5,929 sounds of Freesound (https://zenodo.org/records/4783391).

`clotho_captions_{development,validation,evaluation}.csv` with `file_name,caption_1,…,caption_5`; the clips in `development/`,
`validation/`, `evaluation/`. File names end in blanks before ".wav", hold double blanks, commas and HTML entities: they are never
stripped; where the file on disk has the entity's character instead, that one is taken. `clotho_metadata_*.csv` (ISO-8859-1) gives the
sounds' numbers at Freesound. Other people's code swaps validation and evaluation.
"""

import html
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from alm.data.csv_rows import csv_rows, field
from alm.data.example import CAPTION, Example, ReadReport, clip_with_text
from alm.data.origins import clotho, freesound, meta_of

COLUMNS = ["file_name", *(f"caption_{number}" for number in range(1, 6))]
METADATA_COLUMNS = ["file_name", "sound_id"]
METADATA_ENCODING = "iso-8859-1"
Split = Literal["development", "validation", "evaluation"]
Captions = Literal["all", "first"]


def examples(
    path: Path | str,
    report: ReadReport,
    *,
    audio: Path | str | None = None,
    split: Split = "development",
    captions: Captions = "all",
    metadata: Path | str | None = None,
) -> Iterator[Example]:
    """An example for each caption (`captions="first"`: one per row) of a CSV file, or of the split's in a folder.

    `id` is `<file stem>:<row from 1>:<caption from 1>`. The clip is `audio/file_name` (default: the folder `<split>` beside the CSV).
    `metadata` (default: the split's beside the captions, where it is) adds the origin at Freesound. Captions are kept as they are,
    empty ones dropped and counted. Raises `DataError` for a malformed row.
    """
    table = Path(path) / f"clotho_captions_{split}.csv" if Path(path).is_dir() else Path(path)
    folder = Path(audio) if audio is not None else table.parent / split
    sounds = sound_ids(_metadata_of(table, metadata))
    for number, row in csv_rows(table, COLUMNS):
        report.rows += 1
        file_name = field(row, "file_name", table, number)
        origins = [*clotho(file_name), *freesound(sounds.get(file_name, ""))]
        item = {"path": str(_file(folder, file_name))}
        for index, column in enumerate(COLUMNS[1:2] if captions == "first" else COLUMNS[1:], start=1):
            if not row[column].strip():
                report.dropped["empty caption"] += 1
                continue
            meta = meta_of(origins, file_name=file_name)
            yield clip_with_text(f"{table.stem}:{number}:{index}", report.source, item, row[column], CAPTION, meta)


def sound_ids(metadata: Path | None) -> dict[str, str]:
    """Numbers at Freesound by file name; those that are not known ("Not found") are left out."""
    if metadata is None:
        return {}
    rows = csv_rows(metadata, METADATA_COLUMNS, METADATA_ENCODING)
    return {row["file_name"]: row["sound_id"] for _, row in rows if freesound(row["sound_id"])}


def _metadata_of(table: Path, given: Path | str | None) -> Path | None:
    if given is not None:
        return Path(given)
    beside = table.with_name(table.name.replace("captions", "metadata"))
    return beside if beside != table and beside.is_file() else None


def _file(folder: Path, file_name: str) -> Path:
    named, written_out = folder / file_name, folder / html.unescape(file_name)
    return written_out if not named.is_file() and written_out.is_file() else named
