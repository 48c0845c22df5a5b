"""Samples during training: files and a log, the model left as it was found."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from alm.adapters import lora_config
from alm.checkpoint import LoadedCheckpoint
from alm.data.example import DataError
from alm.training.lora import with_lora
from alm.training.samples import Request, Samples
from alm.training.sft import SequenceConfig
from codec.audio import read_header, write_audio


def test_requests() -> None:
    assert Request.parse("speak=Good morning = yes") == Request("speak", "Good morning = yes")
    assert Request.parse("sound=rain") == Request("sound", "rain")
    assert Request.parse("ask=a b.wav|What | is it?") == Request("ask", "What | is it?", "a b.wav")
    assert Request.parse("ask=Who?") == Request("ask", "Who?")
    for wrong in ("sing=x", "speak", "sound= "):
        with pytest.raises(DataError, match="speak=TEXT"):
            Request.parse(wrong)


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
