"""AudioSet: ten-second clips of YouTube with labels (https://research.google.com/audioset/download.html).

`{balanced_train,unbalanced_train,eval}_segments.csv`: three lines that begin with "#", then `YTID, start_seconds, end_seconds,
positive_labels` with a blank behind each comma and the labels' codes in quotes; `class_labels_indices.csv` names the codes. The audio is
not part of it. On the Hub `agkphysics/AudioSet` holds audio in Parquet, with the labels' names.
"""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from alm.data.audio_names import AudioFinder
from alm.data.audiocaps import NAMES, times_of
from alm.data.csv_rows import csv_rows
from alm.data.example import CAPTION, Content, DataError, Example, ReadReport, clip_with_text
from alm.data.origins import meta_of, youtube
from alm.data.parquet_rows import audio_of, is_parquet, parquet_rows

LABELS_FILE = "class_labels_indices.csv"


def examples(
    path: Path | str,
    report: ReadReport,
    *,
    audio: Path | str | None = None,
    split: str = "balanced_train",
    config: str | None = None,
    labels: Path | str | None = None,
) -> Iterator[Example]:
    """One example per clip of a CSV file, of `<split>_segments.csv` in a folder, or of a split in Parquet.

    The text is the labels' names joined by ", ", as a caption, which is how text-to-audio models are trained on AudioSet; `meta` has
    them as a list. `audio` is the folder of the clips (default: the folder `<CSV's stem>` beside it), `labels` the file of names
    (default: beside the CSV). `id` is `<file stem>:<row from 1>`. Raises `DataError` for a malformed row or an unknown label.
    """
    rows = (
        _of_parquet(path, report, split, config)
        if is_parquet(path)
        else _of_csv(Path(path), report, audio, split, labels)
    )
    for example_id, video, names, item in rows:
        if not "".join(names).strip():
            report.dropped["empty labels"] += 1
            continue
        meta = meta_of(youtube(video), youtube_id=video, labels=list(names))
        yield clip_with_text(example_id, report.source, item, ", ".join(names), CAPTION, meta)


_Rows = Iterator[tuple[str, str, Sequence[str], Content]]


def segments(path: Path) -> Iterator[tuple[int, list[str]]]:
    """`(row from 1, [YTID, start_seconds, end_seconds, labels' codes joined by ","])`. Raises `DataError` for a malformed row."""
    try:
        with path.open(encoding="utf-8-sig", newline="\n") as file:
            rows = csv.reader((line for line in file if not line.startswith("#")), skipinitialspace=True, strict=True)
            for number, row in enumerate(rows, start=1):
                if len(row) != 4 or not row[0]:
                    raise DataError(
                        f"{path}, row {number}: YTID, start_seconds, end_seconds, positive_labels expected, got {row}"
                    )
                yield number, row
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}). Check the path of the metadata file.") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not AudioSet's CSV ({error})") from error


def _of_csv(path: Path, report: ReadReport, audio: Path | str | None, split: str, labels: Path | str | None) -> _Rows:
    metadata = path / f"{split}_segments.csv" if path.is_dir() else path
    finder = AudioFinder(audio if audio is not None else metadata.with_suffix(""), NAMES)
    names_file = Path(labels) if labels is not None else metadata.parent / LABELS_FILE
    names = {row["mid"]: row["display_name"] for _, row in csv_rows(names_file, ["mid", "display_name"])}
    for number, (video, start, _, codes) in segments(metadata):
        report.rows += 1
        unknown = [code for code in codes.split(",") if code and code not in names]
        if unknown:
            raise DataError(f"{metadata}, row {number}: label {unknown[0]!r} is not in {names_file}")
        file = finder.find(id=video, **times_of(start, metadata, number))
        yield (
            f"{metadata.stem}:{number}",
            video,
            [names[code] for code in codes.split(",") if code],
            {"path": str(file)},
        )


def _of_parquet(name: Path | str, report: ReadReport, split: str, config: str | None) -> _Rows:
    for found in parquet_rows(name, ["audio", "video_id", "human_labels"], report, split, config):
        row: dict[str, Any] = found.row
        item = audio_of(found, report)
        if item is not None:
            yield found.id, str(row["video_id"]), row["human_labels"] or [], item
