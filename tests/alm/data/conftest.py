"""Small files in the exact official format of every data set, written by the tests."""

import csv
import io
import json
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

Clips = Sequence[tuple[str, str]]
"""Names (without suffix) and texts. A clip's audio is its name in bytes: readers must not decode."""


def put(path: Path, name: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(name.encode())


def write_csv(path: Path, rows: list[list[str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)


def write_lines(path: Path, rows: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def write_json(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")


def write_parquet(path: Path, rows: list[dict], **options: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path, **options)


def musicqa(folder: Path, clips: Clips) -> str:
    turns = [[{"from": "human", "value": "Describe the audio"}, {"from": "gpt", "value": text}] for _, text in clips]
    rows = [{"audio_name": f"{name}.wav", "conversation": talk} for (name, _), talk in zip(clips, turns, strict=True)]
    write_json(folder / "FinetuneMusicQA.json", rows)
    for name, _ in clips:
        put(folder / "audios" / f"{name}.wav", name)
    return f"musicqa={folder}"


def clothoaqa(folder: Path, clips: Clips) -> str:
    rows = [[f"{name}.wav", "What is heard?", text, "yes"] for name, text in clips]
    write_csv(folder / "clotho_aqa_train.csv", [["file_name", "QuestionText", "answer", "confidence"], *rows])
    for name, _ in clips:
        put(folder / "audio_files" / f"{name}.wav", name)
    return f"clothoaqa={folder}"


def compa_r(folder: Path, clips: Clips) -> str:
    files = [f"./compa_r_train_audios/{name}.wav" for name, _ in clips]
    rows = [
        {"audio_id": file, "instruction": "Why?", "output": text} for file, (_, text) in zip(files, clips, strict=True)
    ]
    write_json(folder / "compa_r_train.json", rows)
    for name, _ in clips:
        put(folder / "compa_r_train_audios" / f"{name}.wav", name)
    return f"compa_r={folder / 'compa_r_train.json'}"


def librispeech(folder: Path, clips: Clips) -> str:
    chapter = folder / "train-clean-100" / "19" / "198"
    chapter.mkdir(parents=True)
    lines = "".join(f"{name} {text}\n" for name, text in clips)
    (chapter / "19-198.trans.txt").write_text(lines, encoding="utf-8")
    for name, _ in clips:
        put(chapter / f"{name}.flac", name)
    return f"librispeech={folder},split=train-clean-100"


def libritts(folder: Path, clips: Clips) -> str:
    chapter = folder / "dev-clean" / "84" / "121123"
    for name, text in clips:
        put(chapter / f"{name}.wav", name)
        (chapter / f"{name}.normalized.txt").write_text(text, encoding="utf-8")
        (chapter / f"{name}.original.txt").write_text("as printed", encoding="utf-8")
    return f"libritts={folder},split=dev-clean"


def audiocaps(folder: Path, clips: Clips) -> str:
    rows = [[str(91139 + n), name, "30", text] for n, (name, text) in enumerate(clips)]
    write_csv(folder / "train.csv", [["audiocap_id", "youtube_id", "start_time", "caption"], *rows])
    for name, _ in clips:
        put(folder / "train" / f"Y{name}.wav", name)
    return f"audiocaps={folder}"


def clotho(folder: Path, clips: Clips) -> str:
    rows = [[f"{name}.wav", text, *(f"another caption {n}" for n in range(4))] for name, text in clips]
    header = ["file_name", *(f"caption_{n}" for n in range(1, 6))]
    write_csv(folder / "clotho_captions_development.csv", [header, *rows])
    for name, _ in clips:
        put(folder / "development" / f"{name}.wav", name)
    return f"clotho={folder},captions=first"


def ifcaps(folder: Path, clips: Clips) -> str:
    rows = [{"id": name, "caption": text, "time": "30.0-40.0"} for name, text in clips]
    write_lines(folder / "metadata" / "audio_000.jsonl", rows)
    for name, _ in clips:
        put(folder / "audio" / "audio_batch_000" / f"{name}_030000.mp3", name)
    return f"ifcaps={folder}"


def ifcaps_archive(folder: Path, clips: Clips) -> str:
    rows = [{"id": name, "caption": json.dumps({"caption": text}), "time": "30.0-40.0"} for name, text in clips]
    write_lines(folder / "metadata" / "audio_000.jsonl", rows)
    (folder / "audio").mkdir()
    with tarfile.open(folder / "audio" / "audio_batch_000.tar.gz", "w:gz") as archive:
        for name, _ in clips:
            member = tarfile.TarInfo(f"audio_batch_000/{name}_030000.mp3")
            member.size = len(name.encode())
            archive.addfile(member, io.BytesIO(name.encode()))
    return f"ifcaps={folder}"


def audioset(folder: Path, clips: Clips) -> str:
    names = ["index,mid,display_name"] + [f'{n},/m/0{n},"{text}"' for n, (_, text) in enumerate(clips)]
    (folder / "class_labels_indices.csv").write_text("\n".join(names) + "\n", encoding="utf-8")
    head = "# Segments csv created\n# num_ytids=2, num_segs=2\n# YTID, start_seconds, end_seconds, positive_labels\n"
    rows = "".join(f'{name}, 30.000, 40.000, "/m/0{n}"\n' for n, (name, _) in enumerate(clips))
    (folder / "balanced_train_segments.csv").write_text(head + rows, encoding="utf-8")
    for name, _ in clips:
        put(folder / "balanced_train_segments" / f"Y{name}.flac", name)
    return f"audioset={folder}"


def wavcaps(folder: Path, clips: Clips) -> str:
    return _wavcaps(folder, clips, "SoundBible", "sb_final.json", "{}", "SoundBible")


def wavcaps_audioset(folder: Path, clips: Clips) -> str:
    return _wavcaps(folder, clips, "AudioSet_SL", "as_final.json", "Y{}.wav", "AudioSet_SL_flac")


def _wavcaps(folder: Path, clips: Clips, part: str, file: str, form: str, audio: str) -> str:
    rows = [
        {"id": form.format(name), "caption": text, "duration": 2.5, "audio": "wav_path", "description": "raw"}
        for name, text in clips
    ]
    write_json(folder / "json_files" / part / file, {"num_captions_per_audio": 1, "data": rows})
    for name, _ in clips:
        put(folder / audio / f"{form.format(name).removesuffix('.wav')}.flac", name)
    return f"wavcaps={folder / 'json_files'},part={part}"


def musicbench(folder: Path, clips: Clips) -> str:
    rows = [
        {"dataset": "MusicBench", "location": f"data_aug2/{name}.wav", "main_caption": text, "alt_caption": "alt"}
        | {"prompt_ch": "", "beats": [[0.1], [1.0]], "bpm": None, "key": ["C", "minor"], "is_audioset_eval_mcaps": True}
        for name, text in clips
    ]
    write_lines(folder / "MusicBench_train.json", rows)
    for name, _ in clips:
        put(folder / "datashare" / "data_aug2" / f"{name}.wav", name)
    return f"musicbench={folder}"


def folder_csv(folder: Path, clips: Clips) -> str:
    rows = [[f"clips/{name}.ogg", text] for name, text in clips]
    write_csv(folder / "metadata.csv", [["file_name", "caption"], *rows])
    for name, _ in clips:
        put(folder / "clips" / f"{name}.ogg", name)
    return f"folder={folder}"


def folder_jsonl(folder: Path, clips: Clips) -> str:
    rows = [{"file_name": f"{name}.ogg", "sentence": text} for name, text in clips]
    write_lines(folder / "metadata.jsonl", rows)
    for name, _ in clips:
        put(folder / f"{name}.ogg", name)
    return f"folder={folder},kind=transcript"


def _parquet(folder: Path, clips: Clips, **columns: Callable[[str, str], object]) -> None:
    rows = [
        {"audio": {"bytes": name.encode(), "path": f"{name}.flac"}}
        | {column: value(name, text) for column, value in columns.items()}
        for name, text in clips
    ]
    write_parquet(folder / "data" / "train-00000-of-00001.parquet", rows)


def parquet_folder(folder: Path, clips: Clips) -> str:
    _parquet(folder, clips, text=lambda name, text: text)
    return f"folder={folder}"


def parquet_librispeech(folder: Path, clips: Clips) -> str:
    _parquet(folder, clips, id=lambda name, text: name, text=lambda name, text: text)
    return f"librispeech={folder},split=train"


def parquet_libritts(folder: Path, clips: Clips) -> str:
    _parquet(folder, clips, id=lambda name, text: name, text_normalized=lambda name, text: text)
    return f"libritts_r={folder},split=train"


def parquet_audiocaps(folder: Path, clips: Clips) -> str:
    _parquet(folder, clips, youtube_id=lambda name, text: name, start_time=lambda *_: 30, caption=lambda _, text: text)
    return f"audiocaps={folder}"


def parquet_audioset(folder: Path, clips: Clips) -> str:
    _parquet(folder, clips, video_id=lambda name, text: name, human_labels=lambda name, text: [text])
    return f"audioset={folder},split=train"


ANY_NAME = ("-x1", "blank ", " first", "two  blanks", "a, b", "café 東京", 'say "hi"', "50%", "{id}", "[x]*?")
UTTERANCE = ("19-198-0000", "-198-0001", "19-198-éé")
YOUTUBE = ("-abcdefghij", "_-bcdefghi_", "Yabcdefghij", "-----------", "a_300000000")
ON_DISK: dict[Callable[[Path, Clips], str], Sequence[str]] = {
    **dict.fromkeys((musicqa, clothoaqa, compa_r, clotho, wavcaps, musicbench, folder_csv, folder_jsonl), ANY_NAME),
    **dict.fromkeys((audiocaps, audioset, ifcaps, wavcaps_audioset), YOUTUBE),
    librispeech: UTTERANCE,
    libritts: ANY_NAME,
}
"""Every form with a file per clip, and what its clips may be called."""
IN_BYTES: dict[Callable[[Path, Clips], str], Sequence[str]] = {
    parquet_folder: ANY_NAME,
    parquet_librispeech: UTTERANCE,
    parquet_libritts: ANY_NAME,
    parquet_audiocaps: YOUTUBE,
    parquet_audioset: YOUTUBE,
    ifcaps_archive: YOUTUBE,
}
"""Every form whose audio is inside other files."""


@pytest.fixture(params=[*ON_DISK, *IN_BYTES], ids=lambda write: write.__name__)
def any_form(request: pytest.FixtureRequest) -> tuple[Callable[[Path, Clips], str], Sequence[str]]:
    """`(write(folder, clips) -> source, names that its clips may have)`."""
    return request.param, (ON_DISK | IN_BYTES)[request.param]


@pytest.fixture(params=ON_DISK, ids=lambda write: write.__name__)
def form_on_disk(request: pytest.FixtureRequest) -> tuple[Callable[[Path, Clips], str], Sequence[str]]:
    """The same, of those with a file per clip."""
    return request.param, ON_DISK[request.param]


@pytest.fixture
def write() -> dict[str, Callable[..., object]]:
    """The writers by name."""
    return {name: value for name, value in globals().items() if callable(value) and not name.startswith("_")}
