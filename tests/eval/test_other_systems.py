"""Any system through `eval/mmar.py`: other people's models by Transformers' classes, and models behind a server."""

import json
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import Qwen3Config, Qwen3ForCausalLM

from alm.chat.backend import BackendError
from alm.data.example import DataError
from alm.scoring.systems.arguments import SystemArguments, is_ours
from alm.scoring.systems.checkpoint import CheckpointSystem
from alm.tokenizer import train_tokenizer
from alm.vocabulary import ContractError
from codec.audio import write_audio

ROOT = Path(__file__).parents[2]
PARTS = runpy.run_path(str(ROOT / "tests" / "helpers" / "chat_server.py"))
completion = PARTS["completion"]
MODEL = "somebody/hears-7b"


@pytest.fixture(scope="module")
def main() -> Callable[[list[str]], None]:
    loaded: Callable[[list[str]], None] = runpy.run_path(str(ROOT / "eval" / "mmar.py"))["main"]
    return loaded


def flags(benchmark: Path, output: Path, *more: object) -> list[str]:
    given = ("--data", benchmark, "--output", output, "--max_new_tokens", 6, "--batch_size", 4, *more)
    return [str(flag) for flag in given]


def read(path: Path) -> dict[str, Any]:
    result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return result


def rows(path: Path) -> dict[str, dict[str, Any]]:
    lines = path.with_name(path.stem + ".items.jsonl").read_text(encoding="utf-8").splitlines()
    return {row["id"]: row for row in map(json.loads, lines)}


@pytest.mark.parametrize("family", ["qwen2_audio", "audio_flamingo_3"])
def test_somebody_elses_model_has_every_score_and_control(
    family: str,
    main: Callable,
    tiny_listeners: dict[str, Path],
    benchmark: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = flags(benchmark, tmp_path / "r.json", "--model", tiny_listeners[family], "--system", family, "--resume")
    main(given)
    result = read(tmp_path / "r.json")
    assert list(result["scores"]) == ["official", "option", "loglikelihood", "loglikelihood_mean", "letter"]
    assert {"no_audio_official", "shuffled_audio_loglikelihood"} <= result["controls"].keys()
    assert (result["counts"]["missing"], "partly_heard" in result["counts"]) == (0, False)
    told = result["manifest"]
    assert told["class"].startswith(("Qwen2Audio", "AudioFlamingo3")) and told["dtype"] == "float32"
    assert len(told["weights"]) == 16 and told["processor"].endswith("Processor")
    found = rows(tmp_path / "r.json")
    assert any(row["loglikelihood"] != row["no_audio"]["loglikelihood"] for row in found.values())
    assert any(row["loglikelihood"] != row["shuffled_audio"]["loglikelihood"] for row in found.values())
    before = (tmp_path / "r.items.jsonl").read_bytes()
    capsys.readouterr()
    main(given)
    assert "10 rows taken over" in capsys.readouterr().err
    assert (tmp_path / "r.items.jsonl").read_bytes() == before
    main([*given, "--dtype", "bfloat16"])  # other weights in memory
    assert "0 rows taken over" in capsys.readouterr().err


def test_clips_that_are_heard_in_part_are_counted(
    main: Callable, tiny_listeners: dict[str, Path], benchmark: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    samples = np.random.default_rng(0).normal(0, 0.1, 3 * 16_000)
    write_audio(benchmark.parent / "audio" / "q3.wav", samples, 16_000)
    main(flags(benchmark, tmp_path / "r.json", "--model", tiny_listeners["qwen2_audio"], "--controls", "none"))
    assert read(tmp_path / "r.json")["counts"]["partly_heard"] == 1 and "1 partly heard" in capsys.readouterr().out
    found = rows(tmp_path / "r.json")
    assert {name for name, row in found.items() if row["heard_seconds"] is not None} == {"q3"}
    assert found["q3"]["heard_seconds"] == pytest.approx(2.0, abs=0.02)


def test_a_reference_is_ours_or_somebody_elses_or_none(
    checkpoint: Path, tiny_listeners: dict[str, Path], tmp_path: Path
) -> None:
    listener = str(tiny_listeners["qwen2_audio"])
    assert is_ours(str(checkpoint)) and not is_ours(listener)
    assert isinstance(SystemArguments(model=str(checkpoint), dtype="bfloat16").load_system(), CheckpointSystem)
    with pytest.raises(DataError, match="--device auto spreads"):
        SystemArguments(model=str(checkpoint), device="auto").load_system()
    with pytest.raises(ContractError, match="no such folder"):
        SystemArguments(model=str(tmp_path / "nowhere")).load_system()
    with pytest.raises(ContractError, match=r"config\.json is missing"):
        SystemArguments(model=str(tmp_path)).load_system()
    with pytest.raises(BackendError, match="--codec and --backend are for this project's"):
        SystemArguments(model=listener, codec="mimi").load_system()
    with pytest.raises(BackendError, match="run in vLLM as a server"):
        SystemArguments(model=listener, backend="vllm").load_system()
    tokenizer = train_tokenizer(["a dog, a cat"], 280)
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1}
    Qwen3ForCausalLM(Qwen3Config(vocab_size=280, intermediate_size=16, head_dim=8, **small)).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(BackendError, match=r"takes no audio.*vocabulary contract"):
        SystemArguments(model=str(tmp_path)).load_system()


def served(server: Any, *more: object) -> list[str]:
    return ["--server", server.address, "--server_model", MODEL, *map(str, more)]


def answer(request: Any) -> Any:
    """A function of what is heard: the first choice where a clip's digest is even, rubbish without a clip."""
    text = request.body["messages"][0]["content"][-1]["text"]
    choices = text.split("choices:\n")[1].split("\n")
    return completion(choices[int(request.clip[:4], 16) % 2] if request.clip else "I hear nothing.")


def test_a_model_behind_a_server(
    main: Callable,
    chat_server: Any,
    benchmark: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    chat_server.behave, chat_server.delay = answer, 0.02
    chat_server.models = {"data": [{"id": MODEL, "root": "hears-7b@3f2", "max_model_len": 4096, "created": 1}]}
    monkeypatch.setenv("SOME_KEY", "sk-secret-0123456789")
    main(flags(benchmark, tmp_path / "r.json", *served(chat_server, "--api_key_env", "SOME_KEY")))
    printed, result = capsys.readouterr(), read(tmp_path / "r.json")
    assert list(result["scores"]) == ["official", "option"] and result["system"] == MODEL
    assert "gives no likelihoods" in result["unavailable"]["loglikelihood"]
    assert result["controls"]["no_audio_official"]["value"] == 0 and "shuffled_audio_official" in result["controls"]
    told = result["manifest"]
    assert told["server_tells"] == {"id": MODEL, "root": "hears-7b@3f2", "max_model_len": 4096}
    assert told["server"] in chat_server.address and told["model"] == told["server_model"] == MODEL
    assert len(chat_server.requests) == 30 and 2 <= chat_server.most_at_once <= 4
    body = chat_server.requests[0].body
    assert (body["temperature"], body["max_tokens"], chat_server.requests[0].audio[1]) == (0.0, 6, 16_000)
    assert chat_server.requests[0].headers["Authorization"] == "Bearer sk-secret-0123456789"
    for text in (printed.out, printed.err, (tmp_path / "r.json").read_text(), (tmp_path / "r.items.jsonl").read_text()):
        assert "sk-secret" not in text
    # one request at a time gives the same
    main(flags(benchmark, tmp_path / "one.json", *served(chat_server, "--batch_size", 1)))
    assert read(tmp_path / "one.json")["scores"] == result["scores"]


def test_a_reply_at_the_limit_is_truncated_and_a_refused_clip_counts_as_wrong(
    main: Callable, chat_server: Any, benchmark: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[str] = []

    def behave(request: Any) -> Any:
        seen.append(request.clip)
        if request.clip == seen[0]:
            return 400, {}, b"this clip is too long"
        return completion("a", finish_reason="length" if request.clip == seen[1] else "stop")

    chat_server.behave = behave
    given = flags(benchmark, tmp_path / "r.json", *served(chat_server, "--controls", "none", "--batch_size", 1))
    main(given)
    counts = read(tmp_path / "r.json")["counts"]
    assert (counts["missing"], counts["truncated"]) == (1, 1)
    assert "400: this clip is too long" in capsys.readouterr().err
    chat_server.behave = lambda request: completion("a dog")
    main([*given, "--resume"])  # what was refused is asked for again
    assert read(tmp_path / "r.json")["counts"]["missing"] == 0 and len(seen) == 10 and len(chat_server.requests) == 11


def test_a_server_that_dies_stops_the_run_and_the_next_one_goes_on(
    main: Callable, chat_server: Any, benchmark: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def behave(request: Any) -> Any:
        return answer(request) if len(chat_server.requests) <= 5 else (401, {}, b"no more credit")

    chat_server.behave = behave
    given = flags(benchmark, tmp_path / "r.json", *served(chat_server, "--controls", "none", "--resume"))
    given[given.index("--batch_size") + 1] = "2"
    with pytest.raises(BackendError, match="401"):
        main(given)
    assert len(rows(tmp_path / "r.json")) == 4
    chat_server.behave = answer
    main(given)
    assert "4 rows taken over" in capsys.readouterr().err and read(tmp_path / "r.json")["counts"]["missing"] == 0


def test_a_server_gives_no_likelihoods_and_none_at_all_is_an_error_at_once(
    main: Callable, chat_server: Any, benchmark: Path, tmp_path: Path
) -> None:
    given = flags(benchmark, tmp_path / "r.json", *served(chat_server))
    with pytest.raises(DataError, match=f"{MODEL} only answers"):
        main([*given, "--no_generation"])
    assert not chat_server.requests
    chat_server.close()
    with pytest.raises(BackendError, match="cannot be reached"):
        main(given)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (["--server", "http://x/v1"], "--server_model NAME belong together"),
        (["--model", "x", "--server", "http://x/v1", "--server_model", "y"], "give one of --model"),
        (["--model", "x", "--api_key_env", "Y"], "give --server"),
        (["--server", "http://x/v1", "--server_model", "y", "--api_key_env", "NOT_SET_AT_ALL"], "not the key"),
        (["--server", "http://x/v1", "--server_model", "y", "--timeout", "0"], "--timeout"),
        (["--model", "x", "--dtype", "int8"], "--dtype"),
    ],
)
def test_flags_that_do_not_fit(
    main: Callable, wrong: list[str], message: str, benchmark: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--data", str(benchmark), *wrong])
    assert caught.value.code == 2 and message in capsys.readouterr().err


def test_a_plan_names_the_server(main: Callable, benchmark: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["--data", str(benchmark), "--server", "http://nowhere.invalid/v1", "--server_model", MODEL, "--dry_run"])
    assert f"model {MODEL} at http://nowhere.invalid/v1" in capsys.readouterr().out
