"""IFCaps (AudioX): captions of clips cut from videos, millions of them (https://huggingface.co/datasets/HKUSTAudio/AudioX-IFcaps, gated).

`metadata/*.jsonl` with `{"id", "caption", "time": "<start>-<end>"}`, `time` in seconds and not in every row; `audio/*.tar.gz` with MP3
clips named `<video>_<start>.mp3`, the start in six digits. A clip may have several captions; a caption is sometimes a JSON object,
written as text, that holds "caption". The data set is gated and its files could not be read here: the start is taken for
milliseconds (as other readers of it do), with or without leading zeros, and rows that fit no clip count as missing audio.
"""

import json
import os
import re
import sqlite3
import tarfile
from collections.abc import Iterator
from pathlib import Path

from alm.data.example import AUDIO_MISSING, CAPTION, Content, DataError, Example, ReadReport, clip_with_text
from alm.data.json_rows import Row, json_rows, text_field
from alm.data.origins import meta_of, stem, youtube_of_name

_START = re.compile(r"(.{11,})_(\d+)", re.DOTALL)
UNTIMED = "no time, and which of the video's clips is meant is not known"


def examples(path: Path | str, report: ReadReport, *, audio: Path | str | None = None) -> Iterator[Example]:
    """One example per caption, in the order of the clips; `id` is `<JSON file's stem>:<row from 1>`.

    `path` is the data set's folder or a JSON lines file; `audio` (default: `audio` beside `metadata`) holds the clips, extracted at any
    depth, or the archives, which are read front to back, once, and not extracted. The captions wait in a temporary database, so that
    memory does not grow with the data set. A row without `time` belongs to the clip that its `id` names in full, or, among extracted
    clips, to the only one of its video. Raises `DataError` for a malformed row or archive.
    """
    root = Path(path)
    files = sorted((root / "metadata").glob("*.jsonl")) if root.is_dir() else [root]
    if not files:
        raise DataError(f"{root}: no metadata/*.jsonl in it")
    folder = Path(audio) if audio is not None else (root if root.is_dir() else root.parent.parent) / "audio"
    captions = sqlite3.connect("", check_same_thread=False)  # a temporary file; a reader may be drawn from in a thread
    try:
        captions.execute("CREATE TABLE caption (row TEXT, video TEXT, clip TEXT, text TEXT, used INTEGER DEFAULT 0)")
        captions.executemany(
            "INSERT INTO caption (row, video, clip, text) VALUES (?, ?, ?, ?)", _captions(files, report)
        )
        captions.execute("CREATE INDEX by_clip ON caption (clip)")
        archives = sorted(folder.rglob("*.tar.gz"))
        if not archives:
            _settle_untimed(captions, folder)
        for name, item in _archived(archives) if archives else _extracted(folder):
            yield from _of_clip(captions, name, item, report)
        for row, clip in captions.execute("SELECT row, clip FROM caption WHERE NOT used"):
            report.dropped[AUDIO_MISSING if clip else UNTIMED] += 1
            report.missing_audio += [row] if clip else []
    finally:
        captions.close()


def _captions(files: list[Path], report: ReadReport) -> Iterator[tuple[str, str, str, str]]:
    """`(row's id, video, clip, caption)`; the clip is empty where nothing tells which."""
    for file in files:
        for number, row in json_rows(file):
            report.rows += 1
            video, text = text_field(row, "id", file, number), _caption(text_field(row, "caption", file, number))
            if not text.strip():
                report.dropped["empty caption"] += 1
                continue
            yield f"{file.stem}:{number}", video, _clip(row, video, file, number), text


def _caption(text: str) -> str:
    """The caption inside an annotation that was written as JSON; any other text as it is."""
    if text.lstrip().startswith("{"):
        try:
            inner = json.loads(text)
        except json.JSONDecodeError:
            return text
        if isinstance(inner, dict) and isinstance(inner.get("caption"), str):
            return str(inner["caption"])
    return text


def _clip(row: Row, video: str, file: Path, number: int) -> str:
    if row.get("time") is None:
        return _key(video) if _START.fullmatch(video) else ""
    try:
        return f"{video}_{round(float(str(row['time']).partition('-')[0]) * 1000)}"
    except ValueError:
        raise DataError(
            f"{file}, row {number}: 'time' must be '<start>-<end>' in seconds, got {row['time']!r}"
        ) from None


def _key(name: str) -> str:
    """`<video>_<start>` without the start's leading zeros; another name as it is."""
    found = _START.fullmatch(name)
    return f"{found[1]}_{int(found[2])}" if found else name


def _extracted(folder: Path) -> Iterator[tuple[str, Content]]:
    for parent, folders, names in os.walk(folder, followlinks=True):
        folders.sort()
        yield from ((name, {"path": str(Path(parent) / name)}) for name in sorted(names) if name.endswith(".mp3"))


def _archived(archives: list[Path]) -> Iterator[tuple[str, Content]]:
    for archive in archives:
        try:
            with tarfile.open(archive, "r|gz") as members:
                for member in members:
                    data = members.extractfile(member) if member.isfile() and member.name.endswith(".mp3") else None
                    if data is not None:
                        yield Path(member.name).name, {"bytes": data.read(), "path": member.name}
                    members.members = []  # type: ignore[attr-defined]  # tarfile keeps every member it has seen
        except (tarfile.TarError, EOFError, OSError) as error:
            raise DataError(f"{archive}: cannot be read ({error}); is the download whole?") from error


def _settle_untimed(captions: sqlite3.Connection, folder: Path) -> None:
    """Give the rows without a time the only clip of their video."""
    captions.execute("CREATE TABLE clip (video TEXT, clip TEXT)")
    names = ((_key(stem(name)).rpartition("_")[0], _key(stem(name))) for name, _ in _extracted(folder))
    captions.executemany("INSERT INTO clip VALUES (?, ?)", names)
    captions.execute("CREATE INDEX by_video ON clip (video)")
    only = "SELECT min(clip) FROM clip WHERE clip.video = caption.video HAVING count(*) = 1"
    captions.execute(f"UPDATE caption SET clip = ({only}) WHERE clip = '' AND EXISTS ({only})")


def _of_clip(captions: sqlite3.Connection, name: str, item: Content, report: ReadReport) -> Iterator[Example]:
    clip = _key(stem(name))
    found = captions.execute(
        "SELECT rowid, row, text FROM caption WHERE clip = ? AND NOT used ORDER BY rowid", (clip,)
    ).fetchall()
    for rowid, row, text in found:
        captions.execute("UPDATE caption SET used = 1 WHERE rowid = ?", (rowid,))
        yield clip_with_text(row, report.source, item, text, CAPTION, meta_of(youtube_of_name(clip), clip=clip))
    if not found:
        report.dropped["clip without a caption"] += 1
