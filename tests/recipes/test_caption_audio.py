"""`recipes/caption_audio.py` through its own `main()` against a real local server, and killed for real."""

import csv
import json
import os
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alm.chat.backend import BackendError
from alm.data.example import DataError
from codec.audio import write_audio
from codec.data import read_clips

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "recipes" / "caption_audio.py"
PARTS = runpy.run_path(str(ROOT / "tests" / "helpers" / "chat_server.py"))
completion, description = PARTS["completion"], PARTS["description"]


@pytest.fixture
def server() -> Iterator[Any]:
    server = PARTS["ChatServer"]().start()
    yield server
    server.close()


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    return make_corpus(tmp_path / "audio", 8)


@pytest.fixture
def main() -> Callable[[list[str]], None]:
    loaded: Callable[[list[str]], None] = runpy.run_path(str(SCRIPT))["main"]
    return loaded


def make_corpus(folder: Path, clips: int) -> Path:
    for n in range(clips):
        write_audio(folder / f"{n:02}.flac", np.random.default_rng(n).uniform(-0.5, 0.5, 4_800), 16_000)
    return folder


def arguments(server: Any, corpus: Path, output: Path, *more: str) -> list[str]:
    where = ["--server", server.address, "--model", "tiny-hearing", "--audio", str(corpus), "--output", str(output)]
    return [*where, "--workers", "3", *more]


def test_captions_are_what_codec_training_reads(
    main: Any, server: Any, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.delay = 0.02
    output = tmp_path / "run" / "captions.csv"
    main(arguments(server, corpus, output))
    out = capsys.readouterr().out
    assert "8 clips to caption" in out and "8 captions in" in out and "0 failed; 8 requests, 2,400 prompt" in out
    clips = read_clips(output)
    assert [clip.audio.name for clip in clips] == [f"{n:02}.flac" for n in range(8)]
    assert all(clip.audio.is_file() for clip in clips) and len({clip.caption for clip in clips}) == 8
    assert 1 < server.most_at_once <= 3
    before = output.read_bytes()
    main(arguments(server, corpus, output))  # nothing is left to do
    assert len(server.requests) == 8 and output.read_bytes() == before
    manifest = json.loads((tmp_path / "run" / "captions.manifest.json").read_text())
    assert (
        manifest["complete"]
        and manifest["served"] == ["tiny-hearing-7"]
        and manifest["settings"]["prompt_id"] == "captions-v1"
    )
    assert manifest["counts"] == {
        **{"clips": 8, "captioned": 8, "failed": 0, "with_transcript": 0, "cut": 0, "requests": 8},
        **{"content_speech": 0, "content_music": 0, "content_sound": 8, "prompt_tokens": 2_400, "answer_tokens": 800},
    }
    assert manifest["seconds"] == 2.4 and manifest["versions"]["transformers"] and manifest["command"]


def test_trouble_on_the_way_changes_nothing_in_the_result(
    main: Any, server: Any, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    main(arguments(server, corpus, tmp_path / "smooth.csv"))
    first = {clip: number for number, clip in enumerate(server.counts)}
    server.counts.clear()

    def behave(request: Any) -> Any:
        bad = description("0", events=None)
        troubles = [
            (429, {"Retry-After": "0.01"}, b""),
            completion("I cannot hear."),
            None,
            completion(json.dumps(bad)),
        ]
        trouble = first[request.clip] % 5
        return request.good if request.number > 1 or trouble == 4 else troubles[trouble]

    server.behave = behave
    monkeypatch.setattr("alm.chat.transport.MAX_DELAY", 0.01)
    main(arguments(server, corpus, tmp_path / "rough.csv"))
    assert (tmp_path / "rough.csv").read_bytes() == (tmp_path / "smooth.csv").read_bytes()


def test_what_never_becomes_a_caption_is_listed_limited_and_can_be_tried_again(
    main: Any, server: Any, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad: set[str] = set()

    def behave(request: Any) -> Any:
        if len(bad) < 2:
            bad.add(request.clip)
        return completion("I would rather not.") if request.clip in bad else request.good

    server.behave = behave
    output = tmp_path / "captions.csv"
    with pytest.raises(DataError, match=r"2 of 8 clips failed, over the limit of 20%"):
        main(arguments(server, corpus, output, "--max_failures", "0.2"))
    assert not output.exists()
    main(arguments(server, corpus, output, "--max_failures", "0.25"))
    assert "6 captions" in (out := capsys.readouterr().out) and "2 failed (listed in" in out
    assert len(read_clips(output)) == 6 and all(server.counts[clip] == 3 for clip in bad)
    with (tmp_path / "captions.failed.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 and all("no usable reply in 3 attempts" in row["reason"] for row in rows)
    server.behave = lambda request: request.good
    main(arguments(server, corpus, output, "--retry_failed"))
    assert len(read_clips(output)) == 8 and not (tmp_path / "captions.failed.csv").exists()
    assert sum(server.counts.values()) == 6 + 2 * 3 + 2


def test_kinds_and_transcripts(main: Any, server: Any, tmp_path: Path) -> None:
    chapter = tmp_path / "LibriSpeech" / "84" / "121123"
    for n in range(2):
        write_audio(chapter / f"84-121123-000{n}.flac", np.random.default_rng(n).uniform(-0.5, 0.5, 4_800), 16_000)
    (chapter / "84-121123.trans.txt").write_text("84-121123-0000 GO DO YOU HEAR\n84-121123-0001 BUT NO\n")
    spoken = completion(json.dumps(description("1", music=None)))
    server.behave = lambda request: request.good if request.number == 1 else spoken
    output = tmp_path / "captions.csv"
    main(arguments(server, tmp_path / "LibriSpeech", output, "--kind", "speech"))
    captions = [clip.caption for clip in read_clips(output)]
    assert [caption.partition(" Transcript: ")[2] for caption in captions] == ["GO DO YOU HEAR", "BUT NO"]
    assert all("music" not in caption for caption in captions) and len(server.requests) == 4
    asked = server.requests[0].body["messages"][0]["content"][1]["text"]
    assert "no music" in asked and '"music"' not in asked
    assert '"music" must be null' in server.requests[-1].body["messages"][2]["content"]
    main(arguments(server, tmp_path / "LibriSpeech", output, "--kind", "speech", "--no_append_transcripts"))
    assert all("Transcript" not in clip.caption for clip in read_clips(output)) and len(server.requests) == 4


def test_dry_run_tells_the_cost_and_asks_nothing(
    main: Any, server: Any, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    price = ["--price_per_million_tokens", "1000", "5000", "--dry_run"]
    main(arguments(server, corpus, tmp_path / "run" / "captions.csv", *price))
    out = capsys.readouterr().out
    assert "8 clips to caption" in out and "(2 s)" in out and "8 requests, at most 3" in out and "1,600 answer" in out
    assert "in the currency of the price" in out and not server.requests and not (tmp_path / "run").exists()
    main(arguments(server, corpus, tmp_path / "captions.csv", "--limit", "3"))
    capsys.readouterr()
    main(arguments(server, corpus, tmp_path / "captions.csv", "--dry_run"))
    out = capsys.readouterr().out
    assert "3 of them are in" in out and "5 clips to caption" in out and len(server.requests) == 3


def test_a_server_that_dies_stops_the_run_and_the_rest_is_done_later(
    main: Any, server: Any, corpus: Path, tmp_path: Path
) -> None:
    def behave(request: Any) -> Any:
        position = next(n for n, known in enumerate(server.requests) if known is request)
        return request.good if position < 4 else (401, {}, b"key expired")

    server.behave = behave
    with pytest.raises(BackendError, match="401: key expired"):
        main(arguments(server, corpus, tmp_path / "captions.csv"))
    done = {json.loads(line)["id"] for line in (tmp_path / "captions.items.jsonl").read_text().splitlines()}
    assert len(done) == 4 and not (tmp_path / "captions.csv").exists()
    server.behave = lambda request: request.good
    sent = len(server.requests)
    main(arguments(server, corpus, tmp_path / "captions.csv"))
    assert len(read_clips(tmp_path / "captions.csv")) == 8 and len(server.requests) == sent + 4


def test_the_key_comes_from_the_environment_and_stays_out_of_every_file(
    main: Any, server: Any, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    key = "sk-not-to-be-seen"
    monkeypatch.setenv("CAPTION_KEY", key)
    main(arguments(server, corpus, tmp_path / "captions.csv", "--api_key_env", "CAPTION_KEY"))
    assert {request.headers["Authorization"] for request in server.requests} == {f"Bearer {key}"}
    written = [path.read_text(errors="replace") for path in tmp_path.glob("captions*")]
    shown = capsys.readouterr()
    assert len(written) == 3 and not any(key in text for text in [*written, shown.out, shown.err])


def test_mistakes_are_named(main: Any, server: Any, corpus: Path, tmp_path: Path, capsys: Any) -> None:
    for more, message in [
        (["--workers", "0"], "--workers must be at least 1"),
        (["--max_failures", "2"], "a share from 0 to 1"),
        (["--max_seconds", "0"], "--max_seconds must be above 0"),
        (["--kind", "noise"], "invalid choice: 'noise'"),
        (["--price_per_million_tokens", "1", "2", "3"], "one price, or two"),
        (["--api_key_env", "NOT_SET_ANYWHERE"], "no environment variable NOT_SET_ANYWHERE"),
        (["--revision", "main"], "--revision is a local model's"),
        (["--retrys", "1"], "did you mean --retries"),
    ]:
        with pytest.raises(SystemExit) as caught:
            main(arguments(server, corpus, tmp_path / "captions.csv", *more))
        assert caught.value.code == 2 and message in capsys.readouterr().err
    with pytest.raises(DataError, match=r"ends with \.csv"):
        main(arguments(server, corpus, tmp_path / "captions"))
    main(arguments(server, corpus, tmp_path / "captions.csv"))
    with pytest.raises(DataError, match=r"max_new_tokens 512 then, 64 now"):
        main(arguments(server, corpus, tmp_path / "captions.csv", "--max_new_tokens", "64"))
    assert len(server.requests) == 8


DRIVER = """
import json, os, runpy, sys
main = runpy.run_path(sys.argv[1])["main"]
from alm.captioning import cost, output, run
from alm.chat import server, transport  # once, not in every process
for line in sys.stdin:
    child = os.fork()
    if not child:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        try:
            main(json.loads(line))
            os._exit(0)
        finally:
            os._exit(1)
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
"""Runs the script's `main` in a process of its own for each line of arguments: to be killed, without five seconds of imports."""


@pytest.mark.slow
def test_kill_minus_9_at_any_moment_loses_nothing_and_asks_nothing_twice(server: Any, tmp_path: Path) -> None:
    corpus, workers, moments = make_corpus(tmp_path / "audio", 24), 3, (0, 1, 4, 9, 10, 15, 18)

    def behave(request: Any) -> Any:  # every third clip breaks a rule first
        bad = int(request.clip[:4], 16) % 3 == 0 and len(request.body["messages"]) == 1
        return completion("I would rather not.") if bad else request.good

    server.behave, server.delay = behave, 0.08
    driver = subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(SCRIPT)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    )
    log = tmp_path / "killed.items.jsonl"

    def run(output: Path, rows: int | None = None) -> int:
        """Exit status of a run, which is killed once the log has `rows` rows."""
        driver.stdin.write(json.dumps(arguments(server, corpus, output)) + "\n")
        child, until = int(driver.stdout.readline()), time.monotonic() + 60
        while rows is not None and time.monotonic() < until:
            if log.exists() and log.read_bytes().count(b"\n") >= rows:
                os.kill(child, signal.SIGKILL)
                break
            time.sleep(0.002)
        return int(driver.stdout.readline())

    try:
        assert run(tmp_path / "smooth.csv") == 0
        needed = server.counts.copy()
        server.counts.clear()
        for rows in moments:
            assert run(tmp_path / "killed.csv", rows) == -signal.SIGKILL
            with log.open("ab") as file:  # a kill may tear the last line
                file.write(b'{"key": "torn", "id": "aud')
            assert not (tmp_path / "killed.csv").exists()
        assert run(tmp_path / "killed.csv") == 0
    finally:
        driver.stdin.close()
        driver.wait(10)
    assert (tmp_path / "killed.csv").read_bytes() == (tmp_path / "smooth.csv").read_bytes()
    # what was under way at a kill is asked for again, nothing else: at most one conversation (of 2 requests) per worker
    again = {clip: server.counts[clip] - count for clip, count in needed.items()}
    assert set(server.counts) == set(needed) and min(again.values()) >= 0
    assert sum(again.values()) <= 2 * workers * len(moments)


@pytest.mark.slow
def test_the_command_itself(server: Any, corpus: Path, tmp_path: Path) -> None:
    server.behave = lambda request: (404, {}, b"no such model")
    command = [sys.executable, str(SCRIPT), *arguments(server, corpus, tmp_path / "captions.csv")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: the server answered 404: no such model; no such model, or")
