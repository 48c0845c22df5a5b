"""`recipes/tokenize_corpus.py` through its own `main()`, and once for real on two processes."""

import os
import re
import runpy
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from accelerate import PartialState

from alm.data.example import DataError
from alm.data.tokens import TokenStore
from alm.vocabulary import ContractError
from codec.audio import write_audio
from codec.configuration import EntangleCodecConfig
from codec.entangle import EntangleCodec
from codec.modeling import EntangleCodecModel

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "recipes" / "tokenize_corpus.py"


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    for index in range(8):
        samples = np.random.default_rng(index).uniform(-0.5, 0.5, 3_000 + 777 * index)
        write_audio(tmp_path / "audio" / f"{index}.flac", samples, 16_000)
    (tmp_path / "audio" / "metadata.csv").write_text("file_name,text\n")
    return tmp_path / "audio"


@pytest.fixture
def main(monkeypatch: pytest.MonkeyPatch, toy_codec: Any) -> Iterator[Callable[[list[str]], None]]:
    def load(name: str, device: str) -> Any:
        assert (name, device) == ("toy", "cpu")
        return toy_codec

    monkeypatch.setattr("codec.zoo.load_codec", load)
    yield runpy.run_path(str(SCRIPT))["main"]
    PartialState._reset_state()


def arguments(corpus: Path, output: Path, *more: str) -> list[str]:
    return ["--codec", "toy", "--audio", str(corpus), "--output", str(output), "--device", "cpu", *more]


def test_a_corpus_is_tokenised_verified_and_not_encoded_twice(
    main: Callable[[list[str]], None], corpus: Path, tmp_path: Path, toy_codec: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    main(arguments(corpus, tmp_path / "tokens"))
    out = capsys.readouterr().out
    assert "1 process, the first on cpu" in out and "8 audio files" in out and "left out: 1 .csv" in out
    assert "8 contents encoded, 0 of 8 files failed" in out and "codebook 0: " in out
    assert len(TokenStore.open(tmp_path / "tokens", toy_codec.fingerprint)) == 8
    main(arguments(corpus, tmp_path / "tokens"))
    assert "0 contents encoded" in capsys.readouterr().out and sum(toy_codec.calls) == 8
    main(["--output", str(tmp_path / "tokens"), "--verify"])
    assert "sound: every shard" in capsys.readouterr().out


def test_dry_run_prints_the_plan_and_writes_nothing(
    main: Callable[[list[str]], None], corpus: Path, tmp_path: Path, toy_codec: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    (corpus / "bad.wav").write_text("no audio")
    main(arguments(corpus, tmp_path / "tokens", "--dry_run"))
    out = capsys.readouterr().out
    tokens = sum(3_000 + 777 * index for index in range(8)) / 16_000 * 50
    assert "0.00 hours by 8 headers" in out and f"{tokens:,.0f} tokens" in out
    assert "1 headers unreadable" in out and "bad.wav: not an audio file" in out
    assert not (tmp_path / "tokens").exists() and toy_codec.calls == []


def test_lists_of_paths_and_several_sources(
    main: Callable[[list[str]], None], corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "list.txt").write_text(f"{corpus / '1.flac'}\n{corpus / '2.flac'}\n")
    argv = ["--codec", "toy", "--audio", str(tmp_path / "list.txt"), str(corpus / "5.flac")]
    main([*argv, "--output", str(tmp_path / "tokens"), "--device", "cpu", "--frames_per_batch", "10"])
    assert "3 contents encoded" in capsys.readouterr().out


def test_parquet_rows_and_archives_are_counted_and_tokenised(
    main: Callable[[list[str]], None], corpus: Path, tmp_path: Path, toy_codec: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    files = sorted(corpus.glob("*.flac"))
    rows = [{"bytes": path.read_bytes(), "path": path.name} for path in files[:3]]
    (tmp_path / "mixed").mkdir()
    pq.write_table(pa.table({"audio": rows}), tmp_path / "mixed" / "train.parquet")
    with tarfile.open(tmp_path / "mixed" / "rest.tar.gz", "w:gz") as archive:
        for path in files[2:]:
            archive.add(path, path.name)
    main(arguments(tmp_path / "mixed", tmp_path / "tokens", "--dry_run"))
    out = capsys.readouterr().out
    assert "0 audio files and 9 clips in 2 Parquet files or archives" in out and "not counted: 9 clips" in out
    main(arguments(tmp_path / "mixed", tmp_path / "tokens"))
    assert "8 contents encoded, 0 of 9 files failed" in capsys.readouterr().out
    main(arguments(corpus, tmp_path / "tokens"))
    assert "0 contents encoded" in capsys.readouterr().out and sum(toy_codec.calls) == 8


def test_stores_are_merged_counted_and_pushed(
    main: Callable[[list[str]], None],
    corpus: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, numbers in (("a", range(5)), ("b", range(3, 8))):
        (tmp_path / f"{name}.txt").write_text("".join(f"{corpus}/{n}.flac\n" for n in numbers))
        main(arguments(tmp_path / f"{name}.txt", tmp_path / name))
    capsys.readouterr()
    main(["--output", str(tmp_path / "all"), "--merge", str(tmp_path / "a"), str(tmp_path / "b"), "--verify"])
    out = capsys.readouterr().out
    assert "8 clips after merging" in out and "sound: every shard" in out and "codebook 0: " in out
    main(["--output", str(tmp_path / "all"), "--statistics"])
    assert capsys.readouterr().out.startswith(f"{tmp_path / 'all'}: 8 clips, ")
    pushed: list[tuple[Any, ...]] = []
    monkeypatch.setattr("alm.data.tokens_hub.push_store", lambda *given: pushed.append(given) or "c0ffee")
    main(["--output", str(tmp_path / "all"), "--push", "someone/tokens", "--private"])
    assert pushed == [(tmp_path / "all", "someone/tokens", True)]
    assert "pushed to someone/tokens at c0ffee" in capsys.readouterr().out


def test_the_progress_line_has_speed_and_time_left(
    main: Callable[[list[str]], None], corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(arguments(corpus, tmp_path / "tokens"))
    line = capsys.readouterr().err.split("encode: ")[-1]
    # elapsed < left, bytes a second, hours of audio so far and a second
    assert re.search(r"\[\d\d:\d\d<[\d?:]+, +[\d.?]+[kMG]?B/s, [\d.]+ h of audio, [\d.]+ h/s\]", line), line


def test_mistakes_are_named(
    main: Callable[[list[str]], None], corpus: Path, tmp_path: Path, toy_codec: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    for argv, message in [
        (["--output", "x"], "--codec and --audio are required"),
        (["--output", "x", "--audio", "a", "--verify"], "are required, together"),
        ([*arguments(corpus, tmp_path / "t"), "--merge", "b"], "two runs"),
        (arguments(corpus, tmp_path / "t", "--max_missing", "5"), "a share from 0 to 1"),
        (arguments(corpus, tmp_path / "t", "--frames_per_batch", "0"), "at least 1"),
        (arguments(corpus, tmp_path / "t", "--frames", "0"), "unknown argument"),
    ]:
        with pytest.raises(SystemExit) as caught:
            main(argv)
        assert caught.value.code == 2 and message in capsys.readouterr().err
    with pytest.raises(DataError, match="no such file or folder"):
        main(arguments(tmp_path / "nowhere", tmp_path / "tokens"))
    (corpus / "bad.wav").write_text("no audio")
    with pytest.raises(DataError, match="1 of 9 files"):
        main(arguments(corpus, tmp_path / "tokens"))
    toy_codec.fingerprint = "another"
    with pytest.raises(ContractError, match=r"'toy-codec-0001'.*'another'"):
        main(arguments(corpus, tmp_path / "tokens"))
    with pytest.raises(DataError, match="not a token store"):
        main(["--output", str(corpus), "--verify"])


def test_verify_fails_on_damage(main: Callable[[list[str]], None], corpus: Path, tmp_path: Path) -> None:
    main(arguments(corpus, tmp_path / "tokens"))
    next((tmp_path / "tokens").glob("sources-*.arrow")).unlink()
    with pytest.raises(DataError, match="damaged"):
        main(["--output", str(tmp_path / "tokens"), "--verify"])


@pytest.mark.slow
def test_two_processes_write_what_one_writes(corpus: Path, tmp_path: Path) -> None:
    small = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    decoder = {f"decoder_{name}": value for name, value in small.items()}
    config = EntangleCodecConfig(**small, **decoder, codebook_size=64)
    EntangleCodec(EntangleCodecModel(config)).save_pretrained(tmp_path / "codec")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}

    def run(name: str, *launcher: str) -> str:
        where = ["--codec", str(tmp_path / "codec"), "--audio", str(corpus), "--output", str(tmp_path / name)]
        command = [sys.executable, *launcher, str(SCRIPT), *where]
        return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout

    assert run("one").startswith("1 process,")
    # some other launch forms run one process without a word: the count is printed, and checked here
    assert run("two", "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2").startswith("2 processes,")
    one, two = (
        {
            path.relative_to(tmp_path / name): path.read_bytes()
            for path in (tmp_path / name).rglob("*")
            if path.is_file()
        }
        for name in ("one", "two")
    )
    assert one == two and len(TokenStore.open(tmp_path / "one")) == 8
