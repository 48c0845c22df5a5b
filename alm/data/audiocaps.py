"""AudioCaps: captions of AudioSet clips, `{train,val,test}.csv` with `audiocap_id,youtube_id,start_time,caption`.

The audio is not part of it (https://github.com/cdjkim/audiocaps): copies name their files in different ways, all of which are tried, and
a tenth of the clips is gone from YouTube. Ids may begin with "-". Validation and test clips have five captions each, a row each. On
the Hub `OpenSound/AudioCaps` and `jp1924/AudioCaps` hold audio in Parquet.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from alm.data.audio_names import AudioFinder
from alm.data.csv_rows import csv_rows, field
from alm.data.example import CAPTION, Content, DataError, Example, ReadReport, clip_with_text
from alm.data.json_rows import text_field
from alm.data.origins import meta_of, youtube
from alm.data.parquet_rows import audio_of, is_parquet, parquet_rows

COLUMNS = ["audiocap_id", "youtube_id", "start_time", "caption"]
NAMES = tuple(
    f"{prefix}{{id}}{rest}"
    for rest in ("", "_{start}", "_{start}_{end}", "_{ms}", "_{ms}_{ms_end}")
    for prefix in ("Y", "")
)
"""Spellings of file names in use: with and without PANNs' Y, the start (and the end) in seconds or milliseconds."""
Captions = Literal["all", "first"]


def examples(
    path: Path | str,
    report: ReadReport,
    *,
    audio: Path | str | None = None,
    split: str = "train",
    captions: Captions = "all",
) -> Iterator[Example]:
    """One example per caption of a CSV file, of the split's in a folder, or of a split in Parquet; `id` is `<file stem>:<row from 1>`.

    `audio` is the folder of the clips (default: the folder `<CSV's stem>` beside the CSV). `captions="first"` keeps one example per
    clip. Captions are kept as they are. Raises `DataError` for a malformed row.
    """
    rows = _of_parquet(path, report, split) if is_parquet(path) else _of_csv(Path(path), report, audio, split)
    seen: set[str] = set()
    for example_id, row, item in rows:
        caption = row["caption"]
        if not caption.strip():
            report.dropped["empty caption"] += 1
        elif captions == "first" and row["youtube_id"] in seen:
            report.dropped["a further caption of the clip"] += 1
        else:
            seen.update([row["youtube_id"]] if captions == "first" else [])
            meta = meta_of(youtube(row["youtube_id"]), **{key: row[key] for key in COLUMNS[:3] if key in row})
            yield clip_with_text(example_id, report.source, item, caption, CAPTION, meta)


_Rows = Iterator[tuple[str, dict[str, Any], Content]]


def _of_csv(path: Path, report: ReadReport, audio: Path | str | None, split: str) -> _Rows:
    metadata = path / f"{split}.csv" if path.is_dir() else path
    finder = AudioFinder(audio if audio is not None else metadata.with_suffix(""), (*NAMES, "{caption_id}"))
    for number, row in csv_rows(metadata, COLUMNS):
        report.rows += 1
        video = field(row, "youtube_id", metadata, number)
        times = times_of(row["start_time"], metadata, number)
        file = finder.find(id=video, caption_id=row["audiocap_id"], **times)
        yield f"{metadata.stem}:{number}", row, {"path": str(file)}


def times_of(start: str, path: Path, number: int, seconds: int = 10) -> dict[str, int]:
    """The times that file names are made of, of a clip that begins at `start` seconds. Raises `DataError` where that is no number."""
    try:
        whole = int(float(start))
    except ValueError:
        raise DataError(f"{path}, row {number}: a start in seconds expected, got {start!r}") from None
    return {"start": whole, "end": whole + seconds, "ms": whole * 1000, "ms_end": (whole + seconds) * 1000}


def _of_parquet(name: Path | str, report: ReadReport, split: str) -> _Rows:
    for found in parquet_rows(
        name, ["audio", "caption", "youtube_id"], report, split, optional=["audiocap_id", "start_time"]
    ):
        item = audio_of(found, report)
        if item is not None:
            for column in ("caption", "youtube_id"):
                text_field(found.row, column, found.shard, found.number)
            yield found.id, found.row, item
