"""MusicBench: MusicCaps' clips with music theory in their captions, and altered copies of them (Mustango).

`MusicBench_train.json`, `MusicBench_test_A.json`, `MusicBench_test_B.json`, JSON lines despite their names; the archive unpacks to
`datashare/data/` and `datashare/data_aug2/`, which the column `location` (`data_aug2/<video>_<n>.wav`) refers to
(https://huggingface.co/datasets/amaai-lab/MusicBench). Altered copies of the test clips are in the training file: `alm.data.leaks`
knows them by the video that they were made of.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from alm.data.audio_names import below
from alm.data.example import CAPTION, Example, ReadReport, clip_with_text
from alm.data.json_rows import json_rows, text_field
from alm.data.origins import meta_of, youtube_of_name

Captions = Literal["main", "alt", "both"]
Split = Literal["train", "test_A", "test_B"]
KEPT = (
    "location",
    "prompt_aug",
    "prompt_ch",
    "prompt_bt",
    "prompt_bpm",
    "prompt_key",
    "bpm",
    "key",
    "is_audioset_eval_mcaps",
)
"""Columns that go into an example's `meta`."""


def examples(
    path: Path | str,
    report: ReadReport,
    *,
    audio: Path | str | None = None,
    split: Split = "train",
    captions: Captions = "main",
) -> Iterator[Example]:
    """One example per row of a JSON file, or of the split's in a folder; `id` is `<file stem>:<row from 1>`, with `:alt` for that caption.

    `audio` is the folder that `location` refers to (default: `datashare` beside the JSON file). `captions`: `main_caption`,
    `alt_caption`, or both as two examples; empty ones are dropped and counted. Raises `DataError` for a malformed row.
    """
    metadata = Path(path) / f"MusicBench_{split}.json" if Path(path).is_dir() else Path(path)
    folder = Path(audio) if audio is not None else metadata.parent / "datashare"
    wanted = ("main", "alt") if captions == "both" else (captions,)
    for number, row in json_rows(metadata):
        report.rows += 1
        location = text_field(row, "location", metadata, number)
        meta = meta_of(youtube_of_name(location), **{key: row[key] for key in KEPT if key in row})
        for caption in wanted:
            text = text_field(row, f"{caption}_caption", metadata, number)
            if not text.strip():
                report.dropped[f"empty {caption}_caption"] += 1
                continue
            example_id = f"{metadata.stem}:{number}" + (":alt" if caption == "alt" else "")
            yield clip_with_text(example_id, report.source, {"path": str(below(folder, location))}, text, CAPTION, meta)
