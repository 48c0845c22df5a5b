"""`recipes/train_vocoder.py` through its own `main()`, without the package `vocos`; killed and gone on with."""

import csv
import importlib.util
import json
import runpy
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from alm.data.example import DataError
from alm.data.tokens_build import build_token_store
from alm.vocabulary import ContractError
from codec import EntangleCodec, EntangleCodecConfig, EntangleCodecModel, VocosModel
from codec.audio import write_audio
from codec.entangle import CheckpointError

ROOT = Path(__file__).parents[2]
interrupt = runpy.run_path(str(ROOT / "tests" / "recipes" / "several_runs.py"))["interrupt"]
SMALL = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
FAST = ["--per_device_train_batch_size", "4", "--learning_rate", "5e-3", "--logging_steps", "1", "--use_cpu", "true"]
FAST += [
    "--disable_tqdm",
    "true",
    "--crop_seconds",
    "0.2",
    "--max_steps",
    "8",
    "--save_steps",
    "3",
    "--save_total_limit",
    "9",
]


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten tones, two of them shorter than a crop."""
    folder = tmp_path_factory.mktemp("clips")
    names = []
    for n in range(10):
        seconds = np.arange(3_000 if n < 2 else 9_600 + 700 * n) / 24_000
        write_audio(folder / f"{n}.wav", 0.3 * np.sin(2 * np.pi * 200 * (n + 1) * seconds), 24_000)
        names.append((f"{n}.wav", "a tone"))
    with (folder / "metadata.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("file_name", "caption"), *names])
    return folder


@pytest.fixture
def codec(tmp_path: Path) -> Path:
    """A codec without a vocoder."""
    torch.manual_seed(0)
    numbers = {f"{part}{name}": value for part in ("", "decoder_", "text_") for name, value in SMALL.items()}
    config = EntangleCodecConfig(**numbers, codebook_size=32, conditioning="add", mel={"mean": -6.0, "std": 3.0})
    EntangleCodec(EntangleCodecModel(config)).save_pretrained(tmp_path / "codec")
    return tmp_path / "codec"


@pytest.fixture
def flags(clips: Path, codec: Path, tmp_path: Path) -> list[str]:
    numbers = tmp_path / "vocoder.yaml"
    numbers.write_text(yaml.safe_dump({"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}))
    return ["--codec", str(codec), "--audio", str(clips), "--vocoder", str(numbers), *FAST]


def train(flags: list[str], output: Path, *more: str) -> None:
    runpy.run_path(str(ROOT / "recipes" / "train_vocoder.py"))["main"]([*flags, "--output_dir", str(output), *more])


def losses(folder: Path) -> list[float]:
    lines = (folder / "training_log.jsonl").read_text().splitlines()
    return [entry["loss"] for entry in map(json.loads, lines) if "loss" in entry]


def equal(ours: Path, theirs: Path) -> bool:
    first, second = (load_file(folder / "model.safetensors") for folder in (ours, theirs))
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_resume_is_exact(flags: list[str], tmp_path: Path) -> None:
    train(flags, tmp_path / "whole")
    interrupt(tmp_path / "whole" / "checkpoint-3", tmp_path / "resumed")
    train(flags, tmp_path / "resumed")
    assert equal(tmp_path / "resumed", tmp_path / "whole")
    assert losses(tmp_path / "resumed") == losses(tmp_path / "whole")
    assert len(losses(tmp_path / "whole")) == 8
    interrupt(tmp_path / "whole" / "checkpoint-3", tmp_path / "other")
    for flag, value in (("mel_weight", "2"), ("seed", "1"), ("crop_seconds", "0.1")):
        with pytest.raises(DataError, match=f"{flag} {value}.*, then"):
            train(flags, tmp_path / "other", f"--{flag}", value)


def test_finetuning_on_the_decoder(flags: list[str], codec: Path, clips: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="this codec has none"):
        train(flags, tmp_path / "tuned", "--finetune_on_decoder", "true")
    train(flags, tmp_path / "true")
    before = EntangleCodec.from_pretrained(codec)
    tune = ["--finetune_on_decoder", "true", "--learning_rate", "1e-3"]
    train(flags, tmp_path / "tuned", *tune)
    after = EntangleCodec.from_pretrained(codec)
    assert after.fingerprint == before.fingerprint
    assert all(
        torch.equal(a, b)
        for a, b in zip(after.model.decoder.parameters(), before.model.decoder.parameters(), strict=True)
    )
    tuned = VocosModel.from_pretrained(tmp_path / "tuned")
    assert torch.equal(after.model.vocoder.head.out.weight, tuned.head.out.weight)
    change = (tuned.head.out.weight - before.model.vocoder.head.out.weight).abs().max()
    assert 0 < change < 0.02  # it went on from the codec's vocoder: eight steps of 1e-3 and less

    # resumed exactly, noise included
    interrupt(tmp_path / "tuned" / "checkpoint-3", tmp_path / "again")
    train(flags, tmp_path / "again", *tune)
    assert equal(tmp_path / "again", tmp_path / "tuned")

    # with codes from a token store; a clip that it lacks and a store of another codec are errors
    store = tmp_path / "tokens"
    build_token_store(sorted(clips.glob("*.wav")), after, store, progress=False)
    train(flags, tmp_path / "stored", *tune, "--tokens", str(store), "--start_from", str(tmp_path / "true"))
    assert len(losses(tmp_path / "stored")) == 8
    assert json.loads((tmp_path / "stored" / "manifest.json").read_text())["arguments"]["tokens"] == str(store)
    other = EntangleCodec.from_pretrained(codec)
    torch.nn.init.normal_(other.model.quantizer.codebook)
    EntangleCodec(other.model).save_pretrained(codec)
    with pytest.raises(ContractError, match="was made with codec"):
        train(flags, tmp_path / "never", *tune, "--tokens", str(store))


def test_it_does_not_go_on_with_other_clips_or_numbers(flags: list[str], clips: Path, tmp_path: Path) -> None:
    train(flags, tmp_path / "whole")
    fewer = shutil.copytree(clips, tmp_path / "fewer")
    (fewer / "9.wav").unlink()
    table = (clips / "metadata.csv").read_text().splitlines()
    (fewer / "metadata.csv").write_text("\n".join(table[:-1]) + "\n")
    larger = tmp_path / "larger.yaml"
    larger.write_text(yaml.safe_dump({"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2}))
    for number, other in enumerate((["--audio", str(fewer)], ["--vocoder", str(larger)], ["--crop_seconds", "0.1"])):
        interrupt(tmp_path / "whole" / "checkpoint-3", tmp_path / str(number))
        with pytest.raises(DataError, match="training data differ from those this run began with"):
            train(flags, tmp_path / str(number), *other)


def test_the_plan(flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(flags, tmp_path / "none", "--dry_run")
    printed = capsys.readouterr().out
    assert "clips            10" in printed
    assert "discriminators   none" in printed
    assert "the true one" in printed
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--tokens", "store"], "--tokens store needs --finetune_on_decoder true"),
        (["--pretrain_steps", "5"], "--pretrain_steps 5 needs --adversarial true"),
        (["--adversarial", "perhaps"], "Truthy value expected"),
    ],
)
def test_flags_that_do_not_fit(
    flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], message: str
) -> None:
    with pytest.raises(SystemExit) as stop:
        train(flags, tmp_path / "none", *more)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.skipif(importlib.util.find_spec("vocos") is not None, reason="the package vocos is installed")
def test_discriminators_without_the_package(flags: list[str], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"pip install .*\[vocoder\].*--adversarial false"):
        train(flags, tmp_path / "none", "--adversarial", "true")


@pytest.mark.slow
def test_kill_9_at_any_moment(flags: list[str], tmp_path: Path) -> None:
    """Killed three times, each time after another checkpoint, then run to its end: the losses and weights of an unbroken run."""
    flags = [*flags, "--max_steps", "40", "--save_steps", "5"]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    train(flags, whole)
    command = [sys.executable, str(ROOT / "recipes" / "train_vocoder.py"), *flags, "--output_dir", str(broken)]
    for step in (5, 15, 25):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 90
        while not list(broken.glob(f"checkpoint-{step}/*")) and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.002)
        assert process.poll() is None
        process.kill()  # SIGKILL, perhaps in the middle of writing that checkpoint
        process.wait()
        assert not (broken / "manifest.json").exists()
    train(flags, broken)
    assert losses(broken) == losses(whole)
    assert equal(broken, whole)
