"""Clips of Parquet shards read where they are: the same clips as a copied data set, each row group read once an epoch."""

import io
import pickle
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

from codec import streaming
from codec.data import ClipListError, CropDataset, mel_statistics, read_clips
from codec.mel import MelSpec
from codec.mixing import MixedClips, Tail, mix_clips, split_off
from codec.parts_trainer import PartsTrainer
from codec.streaming import StreamedClips


def audio(pitch: int) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, 0.1 * np.sin(np.arange(2_400) * pitch / 100), 24_000, format="WAV")
    return file.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three shards of 40, 40 and 25 clips in row groups of 10."""
    for shard, size in enumerate((40, 40, 25)):
        rows = [{"audio": {"bytes": audio(i), "path": f"{i}.wav"}, "text": f"{shard}-{i}"} for i in range(size)]
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / f"train-0000{shard}.parquet", row_group_size=10)
    return tmp_path


def test_the_clips_of_a_copied_data_set(folder: Path) -> None:
    streamed, copied = read_clips(folder, streaming=True), read_clips(folder)
    assert isinstance(streamed, StreamedClips)
    assert streamed.blocks == (10, 10, 10, 10, 10, 10, 10, 10, 10, 10, 5)
    assert len(streamed) == len(copied) == 105
    for index in (0, 9, 10, 57, 104, -1):
        assert streamed[index] == copied[index]
    assert streamed[3:40:9] == copied[3:40:9]
    assert list(streamed.captions) == list(copied.captions)  # type: ignore[attr-defined]
    again = pickle.loads(pickle.dumps(streamed))
    assert not again._read and again[50] == streamed[50]
    with pytest.raises(IndexError):
        streamed[105]


def test_an_epoch_reads_each_row_group_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: Counter[tuple[str, int | None]] = Counter()
    original = streaming._read_table

    def counted(shard: str, columns: list[str], group: int | None = None) -> pa.Table:
        reads[shard, group] += 1
        return original(shard, columns, group)

    monkeypatch.setattr(streaming, "_read_table", counted)
    local = read_clips(folder)[:30]
    mixed = mix_clips([read_clips(folder, streaming=True), local], [105, 30])
    assert isinstance(mixed, MixedClips) and mixed.in_order
    seen = Counter(mixed[i].caption for i in range(len(mixed)))  # type: ignore[union-attr]
    assert seen.total() == 135 and len(seen) == 105 and sum(n == 2 for n in seen.values()) == 30
    assert len(reads) == 11 and set(reads.values()) == {1}
    first = [mixed[i].caption for i in range(40)]  # type: ignore[union-attr]
    assert len({caption.split("-")[0] for caption in first}) > 1  # shards among each other
    mixed.set_epoch(1)
    assert [mixed[i].caption for i in range(40)] != first  # type: ignore[union-attr]


def test_what_stands_at_an_index_does_not_depend_on_what_was_asked_before(folder: Path) -> None:
    one, other = (mix_clips([read_clips(folder, streaming=True)], seed=3) for _ in range(2))
    for clips in (one, other):
        clips.set_epoch(2)  # type: ignore[attr-defined]
    expected = [one[i] for i in range(105)]
    assert [other[i] for i in (100, 3, 77)] == [expected[i] for i in (100, 3, 77)]
    assert sorted(clip.caption for clip in expected) == sorted(read_clips(folder, streaming=True).captions)  # type: ignore[attr-defined]


def test_held_out_clips_are_split_off_without_reading_the_rest(folder: Path) -> None:
    source = StreamedClips(str(folder))
    held_out, rest = split_off(source, 13)
    assert isinstance(rest, Tail) and rest.blocks == (7, 10, 10, 10, 10, 10, 10, 10, 10, 5)
    assert len(source._read) == 2
    assert [clip.caption for clip in held_out] == source.captions[:13]
    assert list(rest.captions) == source.captions[13:]
    assert rest[0] == source[13] and rest[-1] == source[-1] and rest[1:3] == source[14:16]
    assert split_off([1, 2, 3], 1) == ([1], [2, 3])  # type: ignore[arg-type]


def test_trainers_take_such_a_mixture_as_it_stands(folder: Path) -> None:
    crops = CropDataset(mix_clips([read_clips(folder, streaming=True)]), MelSpec(), 0.1)
    sampler = PartsTrainer._get_train_sampler(type("Trainer", (), {"train_dataset": crops})())  # type: ignore[arg-type]
    assert list(sampler) == list(range(105))
    assert mel_statistics(crops.clips, MelSpec(), limit=5)[1] > 0


def test_what_cannot_be_streamed_is_told(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ClipListError, match="no split test"):
        StreamedClips(str(folder), split="test")
    with pytest.raises(ClipListError, match="has columns"):
        StreamedClips(str(folder), caption_column="caption")
    with pytest.raises(ClipListError, match="cannot be opened for streaming"):
        StreamedClips("nobody/nothing")
    plain = tmp_path / "lines"
    plain.mkdir()
    (plain / "train.jsonl").write_text('{"text": "a"}\n')
    with pytest.raises(ClipListError, match=r"train.jsonl, and Parquet files are needed"):
        StreamedClips(str(plain))
