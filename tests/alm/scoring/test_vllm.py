"""vLLM as a system: the answers and likelihoods of Transformers. Runs where vLLM is installed: `make test-vllm`."""

import json
import runpy
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from alm.checkpoint import LoadedCheckpoint, load_checkpoint, save_checkpoint
from alm.data.example import DataError
from alm.processing import AudioLanguageProcessor
from alm.prompts import question_messages
from alm.scoring.choice_run import ChoiceArguments
from alm.scoring.manifest import stored_weights_digest, weights_digest
from alm.scoring.systems.base import ChoiceScorer, ChoiceScores, GeneratedText, Refused, Request
from alm.scoring.systems.checkpoint import CheckpointSystem
from alm.scoring.systems.vllm import VllmSystem
from codec.audio import write_audio

ROOT = Path(__file__).parents[3]
OPTIONS = {"enforce_eager": True, "max_num_seqs": 8}


@pytest.fixture
def clips(tmp_path: Path) -> list[Path]:
    generator = np.random.default_rng(0)
    paths = [tmp_path / f"{number}.wav" for number in range(3)]
    for number, path in enumerate(paths):
        write_audio(path, generator.uniform(-0.5, 0.5, 4_800 * (number + 1)).astype(np.float32), 24_000)
    return paths


@pytest.fixture
def saved(make_language_model: Any, tmp_path: Path) -> LoadedCheckpoint:
    """Random weights, large enough that answers depend on what is heard; a head size that vLLM has kernels for."""
    model, processor = make_language_model(head_dim=32)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.3)
    save_checkpoint(model, processor, tmp_path / "model")
    return LoadedCheckpoint(model, processor)


def test_the_digest_of_files_is_that_of_the_loaded_model(saved: LoadedCheckpoint, tmp_path: Path) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        model, _ = load_checkpoint(tmp_path / "model", dtype=dtype, check_codec=False)
        assert stored_weights_digest(tmp_path / "model", dtype) == weights_digest(model)


def test_options_without_vllm_or_not_json_are_refused() -> None:
    assert ChoiceArguments(model="x", backend="vllm", vllm_options='{"seed": 1}').vllm_settings() == {"seed": 1}
    for wrong in ({"vllm_options": '{"seed": 1}'}, {"backend": "vllm", "vllm_options": "seed"}):
        with pytest.raises(ValueError, match="--vllm_options"):
            ChoiceArguments(model="x", **wrong)


@pytest.mark.skipif(find_spec("vllm") is not None, reason="vLLM is installed")
def test_without_vllm_the_way_to_get_it_is_told() -> None:
    with pytest.raises(DataError, match=r"docs/serving\.md"):
        VllmSystem.load("anything")


@pytest.fixture
def vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("vllm")
    for name, value in {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}.items():
        monkeypatch.setenv(name, value)


@pytest.mark.slow
def test_answers_and_likelihoods_are_those_of_transformers(
    vllm: None, saved: LoadedCheckpoint, clips: list[Path], toy_codec: Any, tmp_path: Path
) -> None:
    ours, theirs = CheckpointSystem(*saved), VllmSystem.load(str(tmp_path / "model"), options=OPTIONS)
    theirs.processor.codec = toy_codec
    assert isinstance(theirs, ChoiceScorer) and theirs.label == "model"
    identity = theirs.identity
    assert identity.pop("engine")["enforce_eager"] and identity == ours.identity

    clips[1].write_text("not audio")
    choices = ("a dog", "a cat", "a dog and a cat", "rain", "a dog")
    requests = [Request(f"Which sound{'?' * n}", clip, choices) for n, clip in enumerate([*clips, None, clips[0]])]
    letters = [one._replace(choices=("A", "B", "C"), closed=False) for one in requests]
    for limit in (3, 24):
        said = theirs.answer(requests, limit)
        assert said == ours.answer(requests, limit) and isinstance(said[1], Refused)
        assert len({reply.text for reply in said if isinstance(reply, GeneratedText)}) > 1
    for asked in (requests, letters):
        for one, other in zip(theirs.score(asked), ours.score(asked), strict=True):
            assert isinstance(one, ChoiceScores) is isinstance(other, ChoiceScores)
            if isinstance(one, ChoiceScores) and isinstance(other, ChoiceScores):
                assert one.tokens == other.tokens and one.sums == pytest.approx(other.sums, abs=1e-4)
    (full,) = theirs.answer([Request("Which?")], 512)
    assert isinstance(full, Refused)
    # a choice that fills the model's context, but for the line break that ends a turn in training
    room = 512 - len(theirs.processor.encode_messages(question_messages("Which?"), add_generation_prompt=True)) - 2
    long = Request("Which?", None, ("a" * room,))
    one, other = theirs.score([long])[0], ours.score([long])[0]
    assert isinstance(one, ChoiceScores) and isinstance(other, ChoiceScores)
    assert one.tokens == other.tokens == (room + 1,) and one.sums == pytest.approx(other.sums, rel=1e-5)
    theirs.engine.llm_engine.engine_core.shutdown()


@pytest.mark.slow
def test_the_command_gives_the_scores_of_transformers(
    vllm: None,
    saved: LoadedCheckpoint,
    clips: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(AudioLanguageProcessor, "from_pretrained", lambda _: saved.processor)  # it has the toy codec
    data = tmp_path / "data.jsonl"
    labels = {"modality": "sound", "category": "a", "sub-category": "b", "language": None}
    rows = [
        {"id": path.stem, "audio_path": path.name, "question": "Which?", "choices": ["a dog", "rain"], "answer": "rain"}
        for path in clips
    ]
    data.write_text("".join(json.dumps(row | labels) + "\n" for row in rows))
    main = runpy.run_path(str(ROOT / "eval" / "mmar.py"))["main"]
    flags = ["--model", str(tmp_path / "model"), "--data", str(data), "--max_new_tokens", "8", "--batch_size", "64"]
    results = []
    for more in ([], ["--backend", "vllm", "--vllm_options", json.dumps(OPTIONS)]):
        main([*flags, "--output", str(tmp_path / "r.json"), *more])
        results.append(json.loads((tmp_path / "r.json").read_text()))
    one, two = results
    assert one["scores"] == two["scores"] and one["controls"] == two["controls"] and one["counts"] == two["counts"]
    assert one["manifest"]["weights"] == two["manifest"]["weights"]
    assert one["manifest"]["resume_key"] != two["manifest"]["resume_key"]
