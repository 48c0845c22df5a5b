"""Reading the token store: by path, by content, after a move, with another codec, damaged."""

import json
import os
import pickle
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.feather
import pytest
from datasets.fingerprint import Hasher
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from alm.data.audio_files import find_audio
from alm.data.example import DataError
from alm.data.tokens import TokenStore
from alm.data.tokens_build import build_token_store
from alm.data.tokens_files import write_atomic
from alm.data.tokens_format import Clip, Source, StoreContract, content_key
from alm.data.tokens_tables import ClipIndex, read_shard, read_sources, write_shard, write_sources
from alm.vocabulary import ContractError
from codec.audio import AudioError, read_audio, write_audio

ToyCodec = Any  # tests/conftest.py


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    for index in range(6):
        samples = np.random.default_rng(index).uniform(-0.5, 0.5, 1_000 * (index + 1))
        write_audio(tmp_path / "audio" / f"sub{index % 2}" / f"{index}.wav", samples, 24_000)
    return tmp_path / "audio"


@pytest.fixture
def store_path(corpus: Path, tmp_path: Path, make_toy_codec: type[ToyCodec]) -> Path:
    build_token_store(
        find_audio([corpus]).paths, make_toy_codec(2), tmp_path / "tokens", codec_name="toy", progress=False
    )
    return tmp_path / "tokens"


def forbid_hashing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> str:
        raise AssertionError(f"{path} was hashed")

    monkeypatch.setattr("alm.data.tokens.content_key", refuse)


def test_codes_come_back_by_path_without_hashing_and_by_key(
    store_path: Path, corpus: Path, make_toy_codec: type[ToyCodec], monkeypatch: pytest.MonkeyPatch
) -> None:
    codec, store = make_toy_codec(2), TokenStore.open(store_path)
    forbid_hashing(monkeypatch)
    for path in find_audio([corpus]).paths:
        codes = store.codes(path)
        assert codes.dtype == np.int64 and codes.shape[0] == 2
        assert np.array_equal(codes, codec.encode([read_audio(path, 24_000)])[0])
        assert np.array_equal(store.codes_by_key(content_key(path)), codes)
        assert store.num_frames(str(path)) == codes.shape[1] and content_key(path) in store
    monkeypatch.chdir(corpus)
    assert store.codes("sub0/0.wav").shape == (2, 3)
    assert len(store) == 6 and len(set(store.keys())) == 6
    assert store.seconds == pytest.approx(21_000 / 24_000)


def test_codes_are_copies_and_the_store_is_closed_to_writing(store_path: Path) -> None:
    store = TokenStore.open(store_path)
    key = next(store.keys())
    store.codes_by_key(key)[:] = 0
    assert store.codes_by_key(key).any()


@pytest.mark.parametrize("what", ["corpus", "both", "touched", "gone"])
def test_a_moved_touched_or_missing_corpus_is_found(
    what: str, store_path: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = TokenStore.open(store_path).codes(corpus / "sub1/3.wav")
    if what in ("corpus", "both"):
        target = tmp_path / "elsewhere"
        target.mkdir()
        corpus = Path(shutil.move(corpus, target))
    if what == "both":  # store and corpus moved together: nothing is hashed
        store_path = Path(shutil.move(store_path, tmp_path / "elsewhere"))
        forbid_hashing(monkeypatch)
    if what == "touched":
        os.utime(corpus / "sub1/3.wav", ns=(1, 1))
    if what == "gone":
        shutil.rmtree(corpus)
        forbid_hashing(monkeypatch)
    store = TokenStore.open(store_path)
    assert np.array_equal(store.codes(corpus / "sub1/3.wav"), expected)
    assert np.array_equal(pickle.loads(pickle.dumps(store)).codes(corpus / "sub1/3.wav"), expected)
    # what `datasets` cannot hash it hashes at random, after seconds
    assert Hasher.hash(store) == Hasher.hash(pickle.loads(pickle.dumps(store)))


def test_unknown_audio_says_what_to_do(store_path: Path, corpus: Path, tmp_path: Path) -> None:
    store = TokenStore.open(store_path)
    write_audio(corpus / "new.wav", np.full(10, 0.5), 24_000)
    with pytest.raises(
        DataError, match=r"new.wav is not in token store .* \(6 clips\); run recipes/tokenize_corpus.py"
    ):
        store.codes(corpus / "new.wav")
    with pytest.raises(DataError, match="no such file"):
        store.codes(tmp_path / "never.wav")
    with pytest.raises(DataError, match="content ffff is not in"):
        store.codes_by_key("ffff")
    write_audio(corpus / "sub0/0.wav", np.full(10, 0.25), 24_000)  # a known path with another content
    with pytest.raises(DataError, match=r"0.wav is not in"):
        store.codes(corpus / "sub0/0.wav")


def test_another_codec_is_refused_with_both_fingerprints(store_path: Path) -> None:
    store = TokenStore.open(store_path, "toy-codec-0001")
    assert store.contract == {
        "codec_fingerprint": "toy-codec-0001",
        "num_codebooks": 2,
        "codebook_size": 64,
        "sampling_rate": 24_000,
        "frame_rate": 50.0,
        "dtype": "uint16",
        "codec": "toy",
    }
    with pytest.raises(ContractError, match=r"toy-codec-0001.*other-codec"):
        TokenStore.open(store_path, "other-codec")


def test_stored_order_is_the_language_models_order(store_path: Path, make_vocabulary: Any) -> None:
    """Frame by frame, as `AudioVocabulary.codes_to_ids` flattens: a reader of the raw Arrow file needs no transposition."""
    store = TokenStore.open(store_path)
    vocabulary = make_vocabulary(2, 64)
    table = pyarrow.feather.read_table(store.shards[0].path)  # pandas, polars and duckdb read it the same way
    for row in table.to_pylist():
        flat = vocabulary.first_id + np.array(row["codes"]) + 64 * (np.arange(len(row["codes"])) % 2)
        assert np.array_equal(vocabulary.codes_to_ids(store.codes_by_key(row["key"])), flat)


def test_statistics_agree_with_a_plain_count(store_path: Path) -> None:
    store = TokenStore.open(store_path)
    codes = np.concatenate([store.codes_by_key(key) for key in list(store.keys())], axis=1)
    statistics = store.statistics()
    assert (statistics.clips, statistics.tokens) == (6, codes.size)
    assert statistics.hours == pytest.approx(21_000 / 24_000 / 3600)
    for k in range(2):
        p = np.array([(codes[k] == c).mean() for c in range(64)])
        assert statistics.used[k] == pytest.approx((p > 0).mean())
        assert statistics.perplexity[k] == pytest.approx(np.prod(np.where(p > 0, p, 1) ** -p))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])  # the fixture is a class
@given(st.integers(1, 4), st.sampled_from([2, 65_536, 65_537, 100_000]), st.data())
def test_shards_round_trip(
    tmp_path_factory: pytest.TempPathFactory, make_toy_codec: type[ToyCodec], K: int, size: int, data: st.DataObject
) -> None:
    contract = StoreContract.of(make_toy_codec(K, size))
    shapes = st.tuples(st.just(K), st.integers(1, 9))
    clips = data.draw(st.lists(arrays(np.int64, shapes, elements=st.integers(0, size - 1)), min_size=1, max_size=5))
    folder = tmp_path_factory.mktemp("shard")
    rows = [Clip(f"{i:032x}", contract.flatten(codes), codes.shape[1], i / 7) for i, codes in enumerate(clips)]
    name = write_shard(folder, rows, contract)
    assert write_shard(folder, rows, contract) == name and len(list(folder.iterdir())) == 1
    shard = read_shard(folder / name)
    assert shard.contract == contract
    for row, (codes, written) in enumerate(zip(clips, rows, strict=True)):
        clip = shard.clip(row)
        assert (clip.key, clip.num_frames, clip.seconds) == (written.key, written.num_frames, written.seconds)
        assert np.array_equal(clip.codes.reshape(-1, K).T, codes)


def test_verify_finds_damage(store_path: Path) -> None:
    assert TokenStore.open(store_path).verify() == []
    shard = next((store_path / "shards").iterdir())
    data = bytearray(shard.read_bytes())
    store = TokenStore.open(store_path)
    at = data.find(store.shards[0].clip(0).codes.tobytes())
    del store
    data[at : at + 2] = b"\xff\xff"
    shard.write_bytes(data)
    problems = TokenStore.open(store_path).verify()
    assert len(problems) == 2 and "do not fit the hash" in problems[0] and "65535 outside [0, 64)" in problems[1]
    shard.write_bytes(data[:50])
    with pytest.raises(DataError, match="damaged"):
        TokenStore.open(store_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "not a token store"),
        ("{", "cannot be read"),
        ('{"format": "x"}', "tokenise again"),
        ("[]", "tokenise again"),
    ],
)
def test_what_is_not_a_store_is_refused(content: str | None, message: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "store.json").write_text(content)
    with pytest.raises(DataError, match=message):
        TokenStore.open(tmp_path)


def test_a_shard_of_another_contract_is_refused(store_path: Path, make_toy_codec: type[ToyCodec]) -> None:
    contract = StoreContract.of(make_toy_codec(2, 32))
    clip = Clip("0" * 32, np.zeros(2, np.uint16), 1, 0.02)
    name = write_shard(store_path / "shards", [clip], contract, "00001-")
    description = json.loads((store_path / "store.json").read_text())
    description["shards"].append(name)
    write_atomic(store_path / "store.json", json.dumps(description).encode())
    with pytest.raises(ContractError, match="codebook_size 32, here 64"):
        TokenStore.open(store_path)


def test_content_keys(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert content_key(tmp_path / "a") == content_key(b"abc") == "ba7816bf8f01cfea414140de5dae2223"
    with pytest.raises(AudioError, match="no such file"):
        content_key(tmp_path / "b")
    with pytest.raises(AudioError, match="a folder"):
        content_key(tmp_path)


def test_finding_audio(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (corpus / "notes.txt").write_text("x")
    (corpus / "talk.m4a").write_bytes(b"x")
    (corpus / "._0.wav").write_bytes(b"x")
    (corpus / "sub0" / "LOUD.WAV").write_bytes(b"x")
    (corpus / "loop").symlink_to(corpus)
    files = find_audio([corpus])
    assert [path.name for path in files.paths] == ["0.wav", "2.wav", "4.wav", "LOUD.WAV", "1.wav", "3.wav", "5.wav"]
    assert files.ignored == {".txt": 1, ".m4a": 1, ".wav": 1}

    monkeypatch.chdir(tmp_path)
    (tmp_path / "list.txt").write_text("# a list\n\naudio/sub0/0.wav\naudio/odd.name\n")
    assert find_audio(["list.txt"]).paths == [Path("audio/odd.name"), Path("audio/sub0/0.wav")]
    assert len(find_audio(["audio", "list.txt", "audio/sub0/0.wav"]).paths) == 8
    (tmp_path / "empty").mkdir()
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00\x81")
    for source, message in [("none", "no such file or folder"), ("empty", "no audio file"), ("binary", "text list")]:
        with pytest.raises(DataError, match=message):
            find_audio([source])


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])  # the fixture is a class
@given(st.lists(st.lists(st.integers(0, (1 << 128) - 1), min_size=1, max_size=20, unique=True), max_size=5), st.data())
def test_bisection_finds_what_a_dictionary_finds(
    tmp_path_factory: pytest.TempPathFactory,
    make_toy_codec: type[ToyCodec],
    shards: list[list[int]],
    data: st.DataObject,
) -> None:
    """Also where shards overlap, as parts of an unfinished build do; the first of a content counts."""
    folder, contract = tmp_path_factory.mktemp("index"), StoreContract.of(make_toy_codec())
    opened, rows = [], {}
    everything = st.sets(st.sampled_from([value for values in shards for value in values] or [0]))
    for number, values in enumerate(shards):
        values = data.draw(st.permutations([*values, *data.draw(everything)]))
        keys = [f"{value:032x}" for value in dict.fromkeys(values)]
        clips = [Clip(key, np.array([len(key)], np.uint16), 1, 0.02) for key in keys]
        opened.append(read_shard(folder / write_shard(folder, clips, contract, f"{number}-")))
        for row, key in enumerate(sorted(keys)):
            rows.setdefault(key, (number, row))
    index = ClipIndex(opened)
    assert len(index) == len(rows)
    assert all(index.find(key) == place for key, place in rows.items())
    assert [opened[shard].clip(row).key for shard, row in index.in_order()] == sorted(rows)
    for absent in ["", "0", "f" * 31, "g" * 32, "f" * 33, f"{data.draw(st.integers(0, (1 << 128) - 1)):032x}"]:
        assert (index.find(absent) is None) == (absent not in rows)


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8), unique=True, max_size=30))
def test_sources_are_found_by_name(names: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        rows = [Source(name, index, index, f"{index:032x}") for index, name in enumerate(names)]
        table = read_sources(Path(folder) / write_sources(Path(folder), rows))
        assert list(table) == sorted(rows) and len(table) == len(rows)
        assert all(table.find(row.path) == row for row in rows)
        assert table.keys().tolist() == [row.key.encode() for row in sorted(rows)]
        assert table.find("\x00") is None or "\x00" in names


def test_questions_about_a_clip_do_not_search_again(
    store_path: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, path = TokenStore.open(store_path), corpus / "sub0" / "0.wav"
    store.key_of(path)
    monkeypatch.setattr(store.sources(), "find", lambda _: pytest.fail("searched again"))
    assert store.codes(path).shape == store.codes_of({"path": str(path)}).shape
