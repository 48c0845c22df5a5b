"""Audio in Parquet rows and tar archives: found, tokenised and looked up like the files with the same bytes."""

import io
import shutil
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

from alm.data import audio_groups
from alm.data.audio_groups import AudioFile, find_groups
from alm.data.example import DataError
from alm.data.tokens import TokenStore
from alm.data.tokens_build import build_token_store
from alm.data.tokens_format import content_key
from codec.data import ClipListError

ToyCodec = Any  # tests/conftest.py


def wav(samples: int, format_name: str = "WAV") -> bytes:
    """A file's bytes; equal lengths have equal bytes."""
    file = io.BytesIO()
    noise = np.random.default_rng(samples).uniform(-0.5, 0.5, samples)
    soundfile.write(file, noise, 24_000, format=format_name)
    return file.getvalue()


LENGTHS = (500, 900, 500, 1_300, 2_000, 700, 900)


def write_files(folder: Path, lengths: Sequence[int] = LENGTHS) -> Path:
    folder.mkdir(parents=True)
    for index, samples in enumerate(lengths):
        (folder / f"{index}.wav").write_bytes(wav(samples))
    return folder


def write_parquet(folder: Path, rows: Sequence[Any]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    audio = pa.array(rows, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    table = pa.table({"audio": audio, "text": [f"clip {i}" for i in range(len(rows))]})
    pq.write_table(table, folder / "train-00000.parquet", row_group_size=3)
    return folder


def write_tar(path: Path, members: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz" if path.suffix in (".gz", ".tgz") else "w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def clips(store: Path) -> dict[str, bytes]:
    """The shards alone: the sources tell where the audio was."""
    return {path.name: path.read_bytes() for path in (store / "shards").iterdir()}


@pytest.mark.parametrize("form", ["parquet", "tar", "tar.gz"])
def test_rows_and_members_give_the_shards_of_the_files_with_their_bytes(
    form: str, tmp_path: Path, make_toy_codec: type[ToyCodec]
) -> None:
    files = find_groups([str(write_files(tmp_path / "files"))])
    build_token_store(files.groups, make_toy_codec(), tmp_path / "reference", progress=False)
    if form == "parquet":
        source = write_parquet(tmp_path / "p", [{"bytes": wav(n), "path": f"{i}.wav"} for i, n in enumerate(LENGTHS)])
    else:
        members = {f"audio/{i}.wav": wav(n) for i, n in enumerate(LENGTHS)}
        source = write_tar(
            tmp_path / "t" / f"clips.{form}", {**members, "notes.txt": b"x", "audio/._0.wav": b"x"}
        ).parent
    found = find_groups([str(source)])
    assert found.clips == len(LENGTHS)
    codec = make_toy_codec()
    report = build_token_store(found.groups, codec, tmp_path / "tokens", progress=False)
    assert (report.files, report.failed, report.clips) == (7, 0, 5) and sum(codec.calls) == 5, "each content once"
    assert clips(tmp_path / "tokens") == clips(tmp_path / "reference")
    store = TokenStore.open(tmp_path / "tokens")
    label = {"parquet": "train-00000.parquet::3"}.get(form, f"clips.{form}::audio/3.wav")
    expected = store.codes_by_key(content_key(wav(1_300)))
    for item in (source / label, {"bytes": wav(1_300), "path": "3.wav"}, {"key": content_key(wav(1_300))}, wav(1_300)):
        assert np.array_equal(store.codes_of(item), expected)
    assert np.array_equal(store.codes_of({"bytes": None, "path": str(tmp_path / "files/3.wav")}), expected)
    assert {Path(row.path).name for row in store.sources() if row.key == content_key(wav(900))} == (
        {"train-00000.parquet::1", "train-00000.parquet::6"} if form == "parquet" else {"1.wav", "6.wav"}
    )
    with pytest.raises(DataError, match="by its key, bytes or path"):
        store.codes_of({"url": "x"})


def test_what_is_wrong_with_a_container_is_a_failure_with_its_reason(
    tmp_path: Path, make_toy_codec: type[ToyCodec]
) -> None:
    write_files(tmp_path / "a")
    outside = {"bytes": None, "path": str(tmp_path / "a/3.wav")}
    write_parquet(
        tmp_path / "a/rows", [{"bytes": b"no audio", "path": "x"}, None, {"bytes": None, "path": None}, outside]
    )
    (tmp_path / "a/cut.parquet").write_bytes((tmp_path / "a/rows/train-00000.parquet").read_bytes()[:-30])
    archive = write_tar(tmp_path / "a/whole.tgz", {f"{i}.wav": wav(3_000 + i) for i in range(3)})
    (tmp_path / "a/cut.tgz").write_bytes(archive.read_bytes()[: archive.stat().st_size // 2])
    pq.write_table(pa.table({"text": ["x"]}), tmp_path / "a/captions.parquet")
    write_tar(tmp_path / "a/texts.tar", {"a.txt": b"x"})
    found = find_groups([str(tmp_path / "a")])
    assert found.ignored == {".parquet without a column audio": 1, "archives without audio": 1}
    report = build_token_store(found.groups, make_toy_codec(), tmp_path / "tokens", max_missing=0.5, progress=False)
    store = TokenStore.open(tmp_path / "tokens")
    assert (report.files, report.failed, report.clips) == (16, 5, 8) and store.verify() == []
    reasons = {Path(failure.path).name: failure.reason for failure in store.failures()}
    expected = {
        "train-00000.parquet::0": "not an audio file",
        "train-00000.parquet::1": "the row has no audio",
        "train-00000.parquet::2": "the row has no audio",
        "cut.parquet": "not a Parquet file",
        "cut.tgz": "not a tar archive",
    }
    assert set(reasons) == set(expected)
    assert all(reasons[name].startswith(text) for name, text in expected.items())
    with pytest.raises(DataError, match="none with a column audio"):
        find_groups([str(tmp_path / "a/captions.parquet")])


def test_a_data_set_of_the_hub_is_read_where_it_is(
    tmp_path: Path, make_toy_codec: type[ToyCodec], monkeypatch: pytest.MonkeyPatch
) -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    data = (
        write_parquet(tmp_path / "p", [{"bytes": wav(n), "path": None} for n in LENGTHS]) / "train-00000.parquet"
    ).read_bytes()
    with memory.open("/clips@c0ffee/train.parquet", "wb") as file:
        file.write(data)
    asked: list[tuple[str, str]] = []

    def shards(name: str, split: str) -> list[str]:
        asked.append((name, split))
        if split == "test":
            raise ClipListError("it has no split test")
        return ["memory://clips@c0ffee/train.parquet"]

    monkeypatch.setattr(audio_groups, "parquet_shards", shards)
    monkeypatch.chdir(tmp_path)
    found = find_groups(["someone/clips"])
    assert asked == [("someone/clips", "train")]
    shutil.rmtree(tmp_path / "p")
    build_token_store(found.groups, make_toy_codec(), tmp_path / "tokens", progress=False)
    store = TokenStore.open(tmp_path / "tokens")
    assert [row.path for row in store.sources()] == [f"memory://clips@c0ffee/train.parquet::{i}" for i in range(7)]
    assert np.array_equal(store.codes_of("memory://clips@c0ffee/train.parquet::3"), store.codes_of(wav(1_300)))
    with pytest.raises(DataError, match=r"someone/clips: no such file or folder, and on the Hub: it has no split test"):
        find_groups(["someone/clips"], "test")


def test_a_source_given_twice_counts_once(tmp_path: Path) -> None:
    folder = write_files(tmp_path / "a")
    found = find_groups([str(folder), str(folder / "3.wav")])
    assert [Path(group.path).name for group in found.groups] == [f"{i}.wav" for i in range(7)]
    assert all(isinstance(group, AudioFile) for group in found.groups)
