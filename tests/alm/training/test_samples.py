"""Samples during training: files and a log, the model left as it was found."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TrainerControl, TrainerState

from alm.adapters import lora_config
from alm.checkpoint import LoadedCheckpoint
from alm.data.example import DataError
from alm.processing import LengthError
from alm.training.lora import with_lora
from alm.training.run import clear
from alm.training.samples import Request, Samples
from alm.training.sft import SequenceConfig
from codec.audio import AudioError, read_header, write_audio


def test_requests() -> None:
    assert Request.parse("speak=Good morning = yes") == Request("speak", "Good morning = yes")
    assert Request.parse("sound=rain") == Request("sound", "rain")
    assert Request.parse("ask=a b.wav|What | is it?") == Request("ask", "What | is it?", "a b.wav")
    assert Request.parse("ask=Who?") == Request("ask", "Who?")
    for wrong in ("sing=x", "speak", "sound= "):
        with pytest.raises(DataError, match="speak=TEXT"):
            Request.parse(wrong)
    Request("ask", "Who?").require_file()
    with pytest.raises(DataError, match=r"there is no file nowhere\.wav"):
        Request.parse("ask=nowhere.wav|Who?").require_file()


@pytest.mark.parametrize("lora", [False, True])
def test_files_and_log(language_model: LoadedCheckpoint, tmp_path: Path, lora: bool) -> None:
    model, processor = language_model
    args = SequenceConfig(output_dir=str(tmp_path), report_to="none", max_length=64, packing=True)
    if lora:
        model = with_lora(model, lora_config(processor.vocabulary, 2), "base", args)
    write_audio(tmp_path / "a.wav", torch.rand(4800).numpy() - 0.5, 24_000)
    requests = [Request("speak", "a dog"), Request("sound", "a bell"), Request("ask", "What?", str(tmp_path / "a.wav"))]
    samples = Samples(requests, processor, tmp_path, args, every=2, max_seconds=0.5)
    model.train()
    model.config.use_cache = False
    before, state = model.config._attn_implementation, torch.random.get_rng_state()
    samples.make(model, 4)
    assert model.training and model.config.use_cache is False and model.config._attn_implementation == before
    assert torch.equal(state, torch.random.get_rng_state())
    rows: list[dict[str, Any]] = [
        json.loads(line) for line in (tmp_path / "samples" / "samples.jsonl").read_text().splitlines()
    ]
    assert [set(row) & {"speak", "sound", "ask"} for row in rows] == [{"speak"}, {"sound"}, {"ask"}]
    for row in rows[:2]:
        assert read_header(tmp_path / "samples" / row["file"]).seconds == pytest.approx(row["seconds"])
        assert (tmp_path / "samples" / row["file"]).with_suffix(".png").stat().st_size > 1000
    samples.make(model, 4)  # the same again: seeds are the requests' own
    again = [json.loads(line) for line in (tmp_path / "samples" / "samples.jsonl").read_text().splitlines()][3:]
    assert again == rows


def test_a_codec_is_needed_before_the_first_step(language_model: LoadedCheckpoint, tmp_path: Path) -> None:
    processor = language_model.processor
    processor._codec = None
    args = SequenceConfig(output_dir=str(tmp_path), report_to="none", max_length=64, packing=True)
    with pytest.raises(ValueError, match="names no codec"):
        Samples([Request("speak", "a")], processor, tmp_path, args, 1)
    Samples([Request("ask", "a")], processor, tmp_path, args, 1)


def test_what_cannot_be_answered_is_said_before_the_first_step(
    make_language_model: Any, make_toy_codec: Any, tmp_path: Path
) -> None:
    class Mute(make_toy_codec):  # type: ignore[misc]
        def decode(self, codes: Any) -> Any:
            raise ValueError("no vocoder")

    args = SequenceConfig(output_dir=str(tmp_path), report_to="none", max_length=64, packing=True)
    processor = make_language_model().processor
    with pytest.raises(AudioError, match=r"gone\.wav"):
        Samples([Request("ask", "a", str(tmp_path / "gone.wav"))], processor, tmp_path, args, 1)
    with pytest.raises(LengthError, match="max_seconds"):
        Samples([Request("sound", "a")], processor, tmp_path, args, 1, max_seconds=20)
    with pytest.raises(ValueError, match="no vocoder"):
        Samples([Request("speak", "a")], make_language_model(codec=Mute()).processor, tmp_path, args, 1)


def test_a_run_that_goes_on_keeps_one_line_a_sample(language_model: LoadedCheckpoint, tmp_path: Path) -> None:
    args = SequenceConfig(output_dir=str(tmp_path), report_to="none", max_length=64, packing=True)
    samples = Samples([Request("ask", "a")], language_model.processor, tmp_path, args, 2)
    for step in (2, 4):
        samples.make(language_model.model, step)
    samples.on_train_begin(args, TrainerState(global_step=3), TrainerControl())
    samples.make(language_model.model, 4)
    log = tmp_path / "samples" / "samples.jsonl"
    assert [json.loads(line)["step"] for line in log.read_text().splitlines()] == [2, 4]
    clear(tmp_path)
    assert not log.exists()
