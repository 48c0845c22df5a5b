"""Building the token store: the finished folder is the same, byte for byte, whatever happened on the way."""

import json
import os
import shutil
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from alm.data import tokens_files
from alm.data.audio_groups import AudioGroup, find_groups
from alm.data.example import DataError
from alm.data.tokens import TokenStore
from alm.data.tokens_build import BuildReport, build_token_store, merge_stores
from alm.data.tokens_format import content_key
from alm.data.tokens_read import Job, batches, in_background, load, load_all, windows
from alm.vocabulary import ContractError
from codec.audio import read_audio, write_audio

ToyCodec = Any  # tests/conftest.py


def write_clips(folder: Path, lengths: Sequence[int], rate: int = 24_000) -> list[Path]:
    """One noise clip for each length; equal lengths have equal contents."""
    paths = []
    for index, samples in enumerate(lengths):
        paths.append(folder / f"{index:03d}.wav")
        write_audio(paths[-1], np.random.default_rng(samples).uniform(-0.5, 0.5, samples), rate)
    return paths


def build(
    paths: Sequence[Path | AudioGroup], codec: ToyCodec, output: Path, world_size: int = 1, **kwargs: Any
) -> BuildReport:
    """Build with so many ranks, each a thread of this process."""
    if world_size == 1:
        return build_token_store(paths, codec, output, progress=False, **kwargs)
    barrier = threading.Barrier(world_size)
    reports: list[BuildReport | None] = [None] * world_size
    errors: list[BaseException] = []

    def run(rank: int) -> None:
        try:
            reports[rank] = build_token_store(
                paths,
                codec,
                output,
                rank=rank,
                world_size=world_size,
                barrier=barrier.wait,
                progress=False,
                **kwargs,
            )
        except BaseException as error:
            errors.append(error)
            barrier.abort()

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(world_size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for error in errors:
        if not isinstance(error, threading.BrokenBarrierError):
            raise error
    assert reports[0] is not None and all(report == reports[0] for report in reports)
    return reports[0]


def tree(folder: Path) -> dict[str, bytes]:
    """Every file of a folder, hidden ones too."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def check(store_path: Path, paths: Sequence[Path], codec: ToyCodec) -> None:
    """The store holds exactly these files' codes and is sound."""
    store = TokenStore.open(store_path, codec.fingerprint)
    for path in paths:
        assert np.array_equal(store.codes(path), codec.encode([read_audio(path, codec.sampling_rate)])[0])
    assert sorted(store.keys()) == sorted({content_key(path) for path in paths})
    assert store.verify() == []
    assert {path.name for path in store_path.iterdir()} <= {"store.json", "shards", "failures.jsonl"} | {
        path.name for path in store_path.glob("sources-*.arrow")
    }


LENGTHS = st.lists(st.integers(1, 4_000), min_size=1, max_size=12)


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])  # the fixture is a class
@given(LENGTHS, st.sampled_from([(1, 64), (2, 64), (3, 70_000)]), st.data())
def test_every_build_of_the_same_audio_gives_the_same_bytes(
    tmp_path_factory: pytest.TempPathFactory,
    make_toy_codec: type[ToyCodec],
    lengths: list[int],
    shape: tuple[int, int],
    data: st.DataObject,
) -> None:
    root = tmp_path_factory.mktemp("builds")
    codec = make_toy_codec(*shape)
    paths = write_clips(root / "audio", lengths)
    build(paths, codec, root / "reference", shard_codes=40)
    check(root / "reference", paths, codec)
    for name in ("a", "b"):
        shuffled = data.draw(st.permutations(paths))
        cut = data.draw(st.integers(0, len(paths)))
        options = {
            "frames_per_batch": data.draw(st.integers(1, 30)),
            "workers": data.draw(st.integers(1, 3)),
            "flush_seconds": data.draw(st.sampled_from([0.0, 100.0])),
            "shard_codes": 40,
        }
        if cut:  # a part of the corpus first, the rest added
            build(shuffled[:cut], codec, root / name, data.draw(st.integers(1, 3)), **options)
        build(shuffled, codec, root / name, data.draw(st.integers(1, 3)), **options)
        assert tree(root / name) == tree(root / "reference")


@given(st.lists(st.integers(0, 500), max_size=60), st.integers(1, 800))
def test_batches_hold_every_clip_once_within_the_budget(lengths: list[int], budget: int) -> None:
    result = batches(lengths, budget)
    assert sorted(index for batch in result for index in batch) == list(range(len(lengths)))
    for batch in result:
        assert len(batch) == 1 or len(batch) * max(lengths[index] for index in batch) <= budget


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_ranks_read_their_own_row_groups_and_a_second_run_reads_none(
    world_size: int, tmp_path: Path, toy_codec: ToyCodec, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = write_clips(tmp_path / "audio", [500, 900, 500, 1_300, 2_000, 700, 900])
    table = pa.table({"audio": [{"bytes": path.read_bytes(), "path": path.name} for path in paths]})
    pq.write_table(table, tmp_path / "clips.parquet", row_group_size=3)
    reads: list[int] = []
    original = pq.ParquetFile.read_row_group

    def counted(self: Any, number: int, **kwargs: Any) -> Any:
        reads.append(number)
        return original(self, number, **kwargs)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", counted)
    groups = find_groups([str(tmp_path / "clips.parquet")]).groups
    assert [len(group.labels) for group in groups] == [3, 3, 1]
    build(groups, toy_codec, tmp_path / "tokens", world_size)
    assert sum(toy_codec.calls) == 5
    assert sorted(reads) == [0, 0, 1, 1, 2], "once to hash, once to encode what is new"
    build(groups, toy_codec, tmp_path / "tokens", world_size)
    assert sum(toy_codec.calls) == 5 and len(reads) == 5


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_equal_contents_are_encoded_once_and_a_second_run_encodes_nothing(
    world_size: int, tmp_path: Path, toy_codec: ToyCodec
) -> None:
    paths = write_clips(tmp_path / "audio", [500, 600, 500, 700, 600, 500, 800])
    report = build(paths, toy_codec, tmp_path / "tokens", world_size)
    assert (report.files, report.encoded, report.clips, report.failed) == (7, 4, 4, 0)
    assert sum(toy_codec.calls) == 4
    assert report.hours == pytest.approx((500 + 600 + 700 + 800) / 24_000 / 3600)
    before = tree(tmp_path / "tokens")
    assert build(paths, toy_codec, tmp_path / "tokens", world_size).encoded == 0
    assert sum(toy_codec.calls) == 4 and tree(tmp_path / "tokens") == before


def test_an_unchanged_file_is_not_read_again(
    tmp_path: Path, toy_codec: ToyCodec, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = write_clips(tmp_path / "audio", [500, 600])
    build(paths, toy_codec, tmp_path / "tokens")
    write_audio(paths[1], np.full(900, 0.25), 24_000)
    hashed: list[str] = []

    def counting(path: str) -> str:
        hashed.append(Path(path).name)
        return content_key(path)

    monkeypatch.setattr("alm.data.tokens_steps.content_key", counting)
    report = build(paths, toy_codec, tmp_path / "tokens")
    assert hashed == ["001.wav"] and report.encoded == 1
    store = TokenStore.open(tmp_path / "tokens")
    assert store.codes(paths[1]).shape == (1, 2) and len(store) == 3 and store.verify() == []


def test_batches_are_padded_little(tmp_path: Path, make_toy_codec: type[ToyCodec]) -> None:
    lengths = [int(n) for n in np.random.default_rng(0).integers(1, 40, 60) * 480]
    paths = write_clips(tmp_path / "audio", lengths)
    seen: list[list[int]] = []

    class Recording(make_toy_codec):  # type: ignore[misc, valid-type]
        def encode(self, waveforms: Sequence[NDArray[np.float32]]) -> list[NDArray[np.int64]]:
            seen.append([len(waveform) // 480 for waveform in waveforms])
            return super().encode(waveforms)

    build(paths, Recording(), tmp_path / "tokens", frames_per_batch=200)
    assert all(len(batch) == 1 or len(batch) * max(batch) <= 200 for batch in seen)
    assert sum(len(batch) * max(batch) for batch in seen) < 1.3 * sum(map(sum, seen))


def spoil(folder: Path) -> list[Path]:
    """Three bad files, two of them equal in content."""
    good = (folder / "000.wav").read_bytes()
    contents = {"bad/text.wav": b"hello", "bad/copy.wav": b"hello", "bad/cut.wav": good[:-10]}
    for name, content in contents.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
    return [folder / name for name in contents] + [folder / "bad/missing.wav"]


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_unreadable_files_are_listed_counted_and_tried_again(
    world_size: int, tmp_path: Path, toy_codec: ToyCodec
) -> None:
    good = write_clips(tmp_path / "audio", [1_000 + n for n in range(16)])
    paths = good + spoil(tmp_path / "audio")
    report = build(paths, toy_codec, tmp_path / "tokens", world_size, max_missing=0.2)
    assert (report.files, report.failed, report.clips) == (20, 4, 16)
    check(tmp_path / "tokens", good, toy_codec)
    store = TokenStore.open(tmp_path / "tokens")
    reasons = {Path(failure.path).name: failure.reason for failure in store.failures()}
    assert list(reasons) == ["copy.wav", "cut.wav", "missing.wav", "text.wav"]
    assert reasons["copy.wav"].startswith("not an audio file") and reasons["text.wav"] == reasons["copy.wav"]
    assert str(tmp_path) not in (tmp_path / "tokens/failures.jsonl").read_text()  # a path of this machine
    assert "cut short" in reasons["cut.wav"] and "No such file" in reasons["missing.wav"]
    with pytest.raises(DataError, match=r"could not be encoded.*cut short"):
        store.codes(tmp_path / "audio/bad/cut.wav")
    reference = tree(tmp_path / "tokens")
    build(paths, toy_codec, tmp_path / "again", 1, max_missing=0.2)
    assert tree(tmp_path / "again") == reference

    (tmp_path / "audio/bad/cut.wav").write_bytes((tmp_path / "audio/003.wav").read_bytes())
    write_audio(tmp_path / "audio/bad/missing.wav", np.full(50, 0.5), 24_000)
    report = build(paths, toy_codec, tmp_path / "tokens", world_size, max_missing=0.1)
    assert (report.failed, report.encoded, report.clips) == (2, 1, 17)


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_too_many_failures_stop_the_run_and_keep_what_was_done(
    world_size: int, tmp_path: Path, toy_codec: ToyCodec
) -> None:
    good = write_clips(tmp_path / "audio", [1_000 + n for n in range(16)])
    paths = good + spoil(tmp_path / "audio")
    with pytest.raises(DataError, match=r"of 20 files .* the 15.0% allowed.*failures.jsonl.*--max_missing"):
        build(paths, toy_codec, tmp_path / "tokens", world_size, max_missing=0.15)
    assert len((tmp_path / "tokens/failures.jsonl").read_text().splitlines()) >= 1
    done = sum(toy_codec.calls)
    build(paths, toy_codec, tmp_path / "tokens", world_size, max_missing=0.2)
    assert sum(toy_codec.calls) == 16 and done <= 16
    check(tmp_path / "tokens", good, toy_codec)


def test_a_hopeless_run_stops_early(tmp_path: Path, toy_codec: ToyCodec) -> None:
    paths = write_clips(tmp_path / "audio", range(480, 20 * 480, 480))
    (tmp_path / "audio/000.wav").write_bytes(b"no")
    with pytest.raises(DataError, match="1 of 19 files"):
        build(paths, toy_codec, tmp_path / "tokens", max_missing=0.0, frames_per_batch=1)
    assert 0 < sum(toy_codec.calls) < 18  # the first window, kept
    assert len(TokenStore.open(tmp_path / "tokens")) == sum(toy_codec.calls)


def test_a_clip_that_the_codec_refuses_fails_alone(tmp_path: Path, make_toy_codec: type[ToyCodec]) -> None:
    class Choosy(make_toy_codec):  # type: ignore[misc, valid-type]
        def encode(self, waveforms: Sequence[NDArray[np.float32]]) -> list[NDArray[np.int64]]:
            if any(len(waveform) > 4_000 for waveform in waveforms):
                raise ValueError("longer than 4,000 samples")
            return [codes[:, : len(w) // 480] for w, codes in zip(waveforms, super().encode(waveforms), strict=True)]

    paths = write_clips(tmp_path / "audio", [100, 1_000, 2_000, 5_000])
    report = build(paths, Choosy(), tmp_path / "tokens", max_missing=0.5)
    assert (report.failed, report.clips) == (2, 2)
    reasons = [failure.reason for failure in TokenStore.open(tmp_path / "tokens").failures()]
    assert "no frames for its 100 samples" in reasons[0] and "longer than 4,000 samples" in reasons[1]


@pytest.mark.parametrize(
    "codes", [np.zeros((2, 3), np.int64), np.zeros((1, 3)), np.array([[-1]]), np.array([[64]]), np.zeros(3, np.int64)]
)
def test_codes_that_break_the_contract_stop_the_build(codes: NDArray[Any], tmp_path: Path, toy_codec: ToyCodec) -> None:
    toy_codec.encode = lambda waveforms: [codes] * len(waveforms)
    with pytest.raises(ContractError, match="the codec gave"):
        build(write_clips(tmp_path / "audio", [100]), toy_codec, tmp_path / "tokens")


def test_another_codec_cannot_add_to_a_store(tmp_path: Path, make_toy_codec: type[ToyCodec]) -> None:
    paths = write_clips(tmp_path / "audio", [100])
    build(paths, make_toy_codec(fingerprint="aaaa"), tmp_path / "tokens")
    with pytest.raises(ContractError, match=r"'aaaa'.*'bbbb'"):
        build(paths, make_toy_codec(fingerprint="bbbb"), tmp_path / "tokens")


def test_a_folder_that_is_no_store_a_file_and_an_empty_list_are_refused(tmp_path: Path, toy_codec: ToyCodec) -> None:
    paths = write_clips(tmp_path / "audio", [100])
    with pytest.raises(DataError, match="holds other files"):
        build(paths, toy_codec, tmp_path / "audio")
    with pytest.raises(DataError, match="a file; give a folder"):
        build(paths, toy_codec, paths[0])
    with pytest.raises(DataError, match="no audio files"):
        build([], toy_codec, tmp_path / "tokens")


def test_two_builds_of_one_store_at_a_time_are_refused(tmp_path: Path, make_toy_codec: type[ToyCodec]) -> None:
    paths = write_clips(tmp_path / "audio", [100])

    class Nested(make_toy_codec):  # type: ignore[misc, valid-type]
        def encode(self, waveforms: Sequence[NDArray[np.float32]]) -> list[NDArray[np.int64]]:
            with pytest.raises(DataError, match="another process is building"):
                build(paths, make_toy_codec(), tmp_path / "tokens")
            return super().encode(waveforms)

    assert build(paths, Nested(), tmp_path / "tokens").encoded == 1


def test_a_file_that_changes_between_hash_and_reading_is_a_failure(tmp_path: Path) -> None:
    path = write_clips(tmp_path, [100])[0]
    loaded = load(Job("0" * 32, str(path), 10, path), 24_000)
    assert loaded.waveform is None and "changed while" in loaded.reason


def test_reading_ahead_keeps_the_order_and_passes_errors_on(tmp_path: Path) -> None:
    paths = write_clips(tmp_path, range(1, 400))
    jobs = [Job(content_key(path), str(path), 1 << 20, path) for path in paths]
    window_lengths = [
        [0 if item.waveform is None else len(item.waveform) for item in window]
        for window in in_background(windows(load_all(jobs, 24_000, 3), 1_000))
    ]
    assert [length for window in window_lengths for length in window] == list(range(1, 400))
    assert all(sum(window) >= 1_000 for window in window_lengths[:-1])

    def failing() -> Any:
        yield 1
        raise KeyError("bug")

    with pytest.raises(KeyError, match="bug"):
        list(in_background(failing()))


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])  # the fixture is a class
@given(LENGTHS, st.data())
def test_merged_stores_are_the_store_of_all_their_audio(
    tmp_path_factory: pytest.TempPathFactory,
    make_toy_codec: type[ToyCodec],
    lengths: list[int],
    data: st.DataObject,
) -> None:
    root = tmp_path_factory.mktemp("merged")
    codec = make_toy_codec(2)
    paths = [*write_clips(root / "audio", lengths), *write_clips(root / "bad", [10, 20, 30])]
    for path in paths[-3:]:
        path.write_bytes(b"no audio " + path.name[:1].encode())  # failures, equal in content
    build(paths, codec, root / "union", shard_codes=40, max_missing=1.0)
    stores = [root / name for name in "abc"]
    for store in stores:
        some = data.draw(st.lists(st.sampled_from(paths), min_size=1, unique=True))
        build(some, codec, store, shard_codes=data.draw(st.sampled_from([40, 1_000])), max_missing=1.0)
    build(paths[data.draw(st.integers(0, len(paths) - 1)) :], codec, stores[0], shard_codes=40, max_missing=1.0)
    rest = [path for path in paths if not any(holds(store, path) for store in stores)]
    if rest:
        build(rest, codec, stores[2], max_missing=1.0)
    if data.draw(st.booleans()):  # into one of them, or into a new one
        target, others = stores[0], stores[1:]
    else:
        target, others = root / "new", data.draw(st.permutations(stores))
    merge_stores(others, target, shard_codes=40)
    assert tree(target) == tree(root / "union")
    merge_stores(others, target, shard_codes=40)
    assert tree(target) == tree(root / "union")


def holds(store: Path, path: Path) -> bool:
    known = {row.path for row in [*TokenStore.open(store).sources(), *TokenStore.open(store).failures()]}
    return os.path.relpath(path, store) in known


def test_what_cannot_be_merged_is_refused(tmp_path: Path, make_toy_codec: type[ToyCodec]) -> None:
    paths = write_clips(tmp_path / "audio", [480 * n for n in range(1, 5)])
    build(paths, make_toy_codec(), tmp_path / "a")
    build(paths, make_toy_codec(fingerprint="other"), tmp_path / "b")
    with pytest.raises(ContractError, match=r"store .*b was made with another codec: .*'other'"):
        merge_stores([tmp_path / "a", tmp_path / "b"], tmp_path / "c")
    with pytest.raises(ContractError, match="another codec"):
        merge_stores([tmp_path / "b"], tmp_path / "a")
    with pytest.raises(DataError, match="not a token store"):
        merge_stores([tmp_path / "a", tmp_path / "audio"], tmp_path / "c")
    assert not (tmp_path / "c").exists()
    with pytest.MonkeyPatch.context() as patch:
        killing(patch, 30)
        with pytest.raises(Killed):
            build(paths, make_toy_codec(), tmp_path / "d", flush_seconds=0.0, frames_per_batch=1)
    with pytest.raises(DataError, match="its build is not finished"):
        merge_stores([tmp_path / "d"], tmp_path / "a")


def test_death_while_merging_loses_nothing(tmp_path: Path, toy_codec: ToyCodec) -> None:
    paths = write_clips(tmp_path / "audio", [480 * n for n in range(1, 9)])
    build(paths, toy_codec, tmp_path / "union", shard_codes=12)
    build(paths[:5], toy_codec, tmp_path / "a", shard_codes=12)
    build(paths[3:], toy_codec, tmp_path / "b", shard_codes=12)
    at, done = 0, False
    while not done:
        at += 1
        shutil.rmtree(tmp_path / "target", ignore_errors=True)
        shutil.copytree(tmp_path / "a", tmp_path / "target")
        with pytest.MonkeyPatch.context() as patch:
            killing(patch, at)
            try:
                merge_stores([tmp_path / "b"], tmp_path / "target", shard_codes=12)
                done = True
            except Killed:
                assert set(TokenStore.open(tmp_path / "a").keys()) <= set(TokenStore.open(tmp_path / "target").keys())
                merge_stores([tmp_path / "b"], tmp_path / "target", shard_codes=12)
        assert tree(tmp_path / "target") == tree(tmp_path / "union"), at
    assert at > 20


class Killed(BaseException):
    """Stands for kill -9: nothing catches it."""


def killing(monkeypatch: pytest.MonkeyPatch, at: int) -> Callable[[], int]:
    """Die before the `at`-th change of the file system (half of a file written, for writes). Returns a counter."""
    count = 0

    def dies() -> bool:
        nonlocal count
        count += 1
        return count == at

    def wrap(owner: Any, name: str) -> None:
        original = getattr(owner, name)

        def wrapper(*args: Any, **kwargs: Any) -> Any:
            if dies():
                raise Killed
            return original(*args, **kwargs)

        monkeypatch.setattr(owner, name, wrapper)

    for owner, name in [
        (Path, "replace"),
        (Path, "unlink"),
        (Path, "mkdir"),
        (shutil, "rmtree"),
        (tokens_files.os, "fsync"),
    ]:
        wrap(owner, name)
    return lambda: count


def test_death_before_any_change_of_the_disk_loses_and_doubles_nothing(
    tmp_path: Path, make_toy_codec: type[ToyCodec]
) -> None:
    audio = tmp_path / "audio"
    paths = write_clips(audio, [480 * n for n in (1, 2, 3, 4, 2)]) + spoil(audio)[:1]
    options: dict[str, Any] = {"frames_per_batch": 4, "flush_seconds": 0.0, "shard_codes": 4, "max_missing": 0.5}
    with pytest.MonkeyPatch.context() as patch:
        changes = killing(patch, 0)
        build(paths, make_toy_codec(), tmp_path / "reference", **options)
    reference = tree(tmp_path / "reference")
    assert changes() > 40
    for at in range(1, changes() + 1):
        codec, output = make_toy_codec(), tmp_path / f"killed-{at}"
        with pytest.MonkeyPatch.context() as patch:
            killing(patch, at)
            with pytest.raises(Killed):
                build(paths, codec, output, **options)
        stored = len(TokenStore.open(output)) if (output / "store.json").exists() else 0
        before = sum(codec.calls)
        report = build(paths, codec, output, **options)
        assert report.encoded == sum(codec.calls) - before == 4 - stored, "encoded again, or lost"
        assert tree(output) == reference, at


def test_a_lost_shard_is_encoded_again(tmp_path: Path, toy_codec: ToyCodec) -> None:
    paths = write_clips(tmp_path / "audio", [480 * n for n in range(1, 9)])
    build(paths, toy_codec, tmp_path / "tokens", shard_codes=12)
    reference = tree(tmp_path / "tokens")
    lost = tmp_path / "tokens/shards" / json.loads((tmp_path / "tokens/store.json").read_text())["shards"][1]
    lost.unlink()
    with pytest.raises(DataError, match=r"lacks .*tokenise again"):
        TokenStore.open(tmp_path / "tokens")
    build(paths, toy_codec, tmp_path / "tokens", shard_codes=12)
    assert tree(tmp_path / "tokens") == reference
