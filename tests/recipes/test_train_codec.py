"""`recipes/train_codec.py` and `recipes/train_vocoder.py` through their own `main()`."""

import csv
import json
import os
import runpy
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from alm.arguments import ConfigFileError, read_numbers
from alm.data.example import DataError
from codec import EntangleCodec, EntangleCodecConfig, EntangleCodecForPreTraining
from codec.audio import AudioError, write_audio
from codec.data import ClipListError, CropDataset, read_clips
from codec.ema import MovingAverage
from codec.entangle import CheckpointError
from codec.mel import MelSpec
from codec.training import CodecTrainer

ROOT = Path(__file__).parents[2]
SMALL = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}

FAST = ["--per_device_train_batch_size", "4", "--learning_rate", "5e-3", "--warmup_steps", "0", "--logging_steps", "1"]
FAST += ["--gradient_accumulation_steps", "1", "--disable_tqdm", "true", "--use_cpu", "true", "--crop_seconds", "0.4"]
interrupt = runpy.run_path(str(ROOT / "tests" / "recipes" / "several_runs.py"))["interrupt"]
CARE = ["--encoder_learning_rate", "1e-3", "--restart_every", "2", "--restart_threshold", "1", "--max_steps", "10"]


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve tones of different pitch, captioned, in AudioFolder's form."""
    folder = tmp_path_factory.mktemp("clips")
    rows = []
    for n in range(12):
        seconds = np.arange(9_600 + 700 * n) / 24_000
        write_audio(folder / f"{n}.wav", 0.3 * np.sin(2 * np.pi * 200 * (n + 1) * seconds), 24_000)
        rows.append((f"{n}.wav", f"a tone of pitch {n}, {'low' if n < 6 else 'high'} and steady"))
    with (folder / "metadata.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("file_name", "caption"), *rows])
    return folder


@pytest.fixture(scope="module")
def numbers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("numbers") / "codec.yaml"
    small = {f"{part}{name}": value for part in ("", "decoder_", "text_") for name, value in SMALL.items()}
    path.write_text(
        yaml.safe_dump(
            {**small, "codebook_size": 32, "projection_size": 8, "text_vocab_size": 60, "conditioning": "add"}
        )
    )
    return path


def script(name: str) -> Any:
    """`main` of a recipe."""
    return runpy.run_path(str(ROOT / "recipes" / name))["main"]


def train(clips: Path, numbers: Path, output: Path, *more: str) -> None:
    flags = ["--audio", str(clips), "--codec", str(numbers), "--output_dir", str(output), *FAST]
    script("train_codec.py")([*flags, *CARE, *more])


def log(folder: Path) -> list[dict[str, Any]]:
    """Steps of a training log without their times."""
    lines = map(json.loads, (folder / "training_log.jsonl").read_text().splitlines())
    return [{**line, "seconds": 0} for line in lines if "flow_loss" in line]


def mean_loss(folder: Path) -> float:
    """The mean of all steps, of the log's last line."""
    return float(json.loads((folder / "training_log.jsonl").read_text().splitlines()[-1])["train_loss"])


def same_weights(one: Path, other: Path) -> bool:
    """Whether two stage-1 models are the same to the bit."""
    ours, theirs = (load_file(folder / "pretraining" / "model.safetensors") for folder in (one, other))
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.fixture(scope="module")
def trained(clips: Path, numbers: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("codec")
    train(clips, numbers, output, "--save_steps", "4", "--save_total_limit", "9")
    return output


def test_it_learns_and_ends_as_a_codec(clips: Path, trained: Path) -> None:
    steps = log(trained)
    assert len(steps) == 10
    assert steps[-1]["flow_loss"] < steps[0]["flow_loss"]
    assert sum(step["restarted"] for step in steps) > 0
    assert steps[-1]["code_perplexity"] > 4
    codec = EntangleCodec.from_pretrained(trained)
    spec = codec.model.config.mel_spec
    assert spec.mean != 0  # statistics of the training set
    assert codec.encode([np.zeros(4_800, np.float32)])[0].shape == (1, 10)
    full = EntangleCodecForPreTraining.from_pretrained(trained / "pretraining")
    assert EntangleCodec(full.codec).fingerprint == codec.fingerprint
    assert json.loads((trained / "manifest.json").read_text())["fingerprint"] == codec.fingerprint


@pytest.mark.parametrize(
    "step", [4, 8, 10]
)  # at 10 nothing is left but to write the codec: a run killed before its manifest
def test_resume_is_exact(clips: Path, numbers: Path, trained: Path, tmp_path: Path, step: int) -> None:
    interrupt(trained / f"checkpoint-{step}", tmp_path)
    with (tmp_path / "training_log.jsonl").open("a") as file:
        file.write('{"step": 10, "seco')  # the disk was full
    train(clips, numbers, tmp_path)
    assert same_weights(tmp_path, trained)
    assert log(tmp_path) == log(trained)


def test_an_interruption_changes_no_entry_of_the_log(clips: Path, numbers: Path, tmp_path: Path) -> None:
    more = ["--logging_steps", "4", "--save_steps", "3", "--save_total_limit", "9"]
    train(clips, numbers, tmp_path / "whole", *more)
    for step in (3, 6):
        interrupt(tmp_path / "whole" / f"checkpoint-{step}", tmp_path / str(step))
        train(clips, numbers, tmp_path / str(step), *more)
        assert log(tmp_path / str(step)) == log(tmp_path / "whole")
        assert mean_loss(tmp_path / str(step)) == pytest.approx(mean_loss(tmp_path / "whole"), rel=1e-6)
    assert [line["step"] for line in log(tmp_path / "whole")] == [4, 8] and log(tmp_path / "whole")[0]["restarted"] > 0


def test_sigterm_saves_stops_and_goes_on(
    clips: Path, numbers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, broken, calls = tmp_path / "whole", tmp_path / "broken", []
    train(clips, numbers, whole, "--ema_decay", "0.9")

    def told(self: Any, *args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        if len(calls) == 5:
            os.kill(os.getpid(), signal.SIGTERM)
        return own(self, *args, **kwargs)

    own = CodecTrainer.compute_loss
    with monkeypatch.context() as patch:
        patch.setattr(CodecTrainer, "compute_loss", told)
        with pytest.raises(SystemExit) as ended:
            train(clips, numbers, broken, "--ema_decay", "0.9", "--save_strategy", "no")
    assert ended.value.code == 75 and [path.name for path in broken.glob("checkpoint-*")] == ["checkpoint-5"]
    assert {"ema.safetensors", "spread.json"} <= {path.name for path in (broken / "checkpoint-5").iterdir()}
    train(clips, numbers, broken, "--ema_decay", "0.9")
    assert same_weights(broken, whole) and log(broken) == log(whole)


def test_it_does_not_go_on_with_another_batch(clips: Path, numbers: Path, trained: Path, tmp_path: Path) -> None:
    interrupt(trained / "checkpoint-4", tmp_path)
    with pytest.raises(DataError, match="was trained with 4 rows a step on 1 processes"):
        train(clips, numbers, tmp_path, "--per_device_train_batch_size", "2")


def test_it_does_not_go_on_with_other_data_or_numbers(
    clips: Path, numbers: Path, trained: Path, tmp_path: Path
) -> None:
    interrupt(trained / "checkpoint-4", tmp_path / "run")
    larger = tmp_path / "larger.yaml"
    larger.write_text(numbers.read_text() + "decoder_num_hidden_layers: 2\n")
    moved = shutil.copytree(clips, tmp_path / "moved")
    table = (clips / "metadata.csv").read_text()
    (moved / "metadata.csv").write_text(table.replace("low", "deep"))
    for other, what in (((moved, numbers), ()), ((clips, larger), ()), ((clips, numbers), ("--ema_decay", "0.9"))):
        with pytest.raises(DataError, match="training data differ from those this run began with"):
            train(*other, tmp_path / "run", *what)
    (moved / "metadata.csv").write_text(table)
    train(moved, numbers, tmp_path / "run")  # the same clips elsewhere
    assert same_weights(tmp_path / "run", trained)


@pytest.mark.slow
def test_kill_9_at_any_moment(clips: Path, numbers: Path, tmp_path: Path) -> None:
    """Killed three times, each time after another checkpoint, then run to its end: the losses and weights of an unbroken run."""
    more = [*CARE, "--max_steps", "60", "--save_steps", "5", "--ema_decay", "0.9"]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    train(clips, numbers, whole, *more)
    flags = ["--audio", str(clips), "--codec", str(numbers), "--output_dir", str(broken), *FAST, *more]
    for step in (5, 20, 40):
        command = [sys.executable, str(ROOT / "recipes" / "train_codec.py"), *flags]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 90
        while not list(broken.glob(f"checkpoint-{step}/*")) and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.002)
        process.kill()  # SIGKILL, perhaps in the middle of writing that checkpoint
        assert process.wait() == -signal.SIGKILL
        assert not (broken / "manifest.json").exists()
    train(clips, numbers, broken, *more)
    assert log(broken) == log(whole)
    assert same_weights(broken, whole)


def test_a_finished_run_is_not_overwritten(clips: Path, numbers: Path, trained: Path) -> None:
    with pytest.raises(ValueError, match="holds a finished run"):
        train(clips, numbers, trained)


def test_dry_run_prints_the_plan(
    clips: Path, numbers: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(clips, numbers, tmp_path / "none", "--dry_run")
    printed = capsys.readouterr().out
    assert "clips            12" in printed
    assert "effective batch  4 crops" in printed
    assert not (tmp_path / "none").exists()


def test_the_vocoder_moves_into_the_codec(clips: Path, trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path / "codec", ignore=shutil.ignore_patterns("checkpoint-*"))
    numbers = tmp_path / "vocoder.yaml"
    numbers.write_text(yaml.safe_dump({"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}))
    before = EntangleCodec.from_pretrained(tmp_path / "codec")
    flags = ["--codec", str(tmp_path / "codec"), "--vocoder", str(numbers), "--audio", str(clips), *FAST]
    script("train_vocoder.py")([*flags, "--max_steps", "12", "--output_dir", str(tmp_path / "vocoder")])
    losses = [
        json.loads(line).get("loss") for line in (tmp_path / "vocoder" / "training_log.jsonl").read_text().splitlines()
    ]
    assert losses[-2] < losses[0]
    after = EntangleCodec.from_pretrained(tmp_path / "codec")
    assert after.fingerprint == before.fingerprint
    wave = after.decode([np.zeros((1, 7), np.int64)])[0]
    assert wave.shape == (7 * 480,)
    assert np.isfinite(wave).all()


def test_paper_and_tiny_differ_in_numbers_only() -> None:
    configs = Path(__file__).parents[2] / "recipes" / "configs"
    paper, tiny = (yaml.safe_load((configs / size / "codec.yaml").read_text()) for size in ("paper", "tiny"))
    default = EntangleCodecConfig()
    assert all(getattr(default, name) == value for name, value in paper.items())  # the class's defaults are the paper's
    assert set(paper) <= set(tiny)
    assert (default.hidden_size, default.projection_size, default.codebook_dim) == (768, 512, 14)  # Table 5
    # 8 crops × 4 accumulation × 8 GPUs
    training = yaml.safe_load((configs / "paper" / "train_codec.yaml").read_text())
    assert training["per_device_train_batch_size"] * training["gradient_accumulation_steps"] * 8 == 256


def test_crops_depend_on_seed_epoch_and_clip_alone(clips: Path) -> None:
    data = CropDataset(read_clips(clips), MelSpec(), crop_seconds=0.1, seed=1)
    first = [data[i]["mel"] for i in range(12)]
    assert all(torch.equal(data[i]["mel"], first[i]) for i in reversed(range(12)))
    data.set_epoch(1)
    assert any(not torch.equal(data[i]["mel"], first[i]) for i in range(12))


def test_unreadable_clips_are_listed_up_to_the_limit(clips: Path, tmp_path: Path) -> None:
    rows = list(csv.reader((clips / "metadata.csv").open()))
    (tmp_path / "text.wav").write_text("not audio")
    table = tmp_path / "list.csv"
    with table.open("w", newline="") as file:
        csv.writer(file).writerows(
            [rows[0], ("text.wav", "broken"), *((clips / name, caption) for name, caption in rows[1:])]
        )
    data = CropDataset(read_clips(table), MelSpec(), max_missing=0.1)
    assert torch.equal(data[0]["mel"], data[1]["mel"])  # the next readable clip stands in
    assert "text.wav" in next(iter(data.unreadable.values()))
    with pytest.raises(AudioError, match=r"1 of 13 clips cannot be read"):
        CropDataset(read_clips(table), MelSpec(), max_missing=0.0)[0]


@pytest.mark.parametrize(
    ("text", "match"), [("name,caption\n", "file_name"), ("file_name,words\na.wav,b\n", "caption")]
)
def test_a_list_without_its_columns_is_an_error(tmp_path: Path, text: str, match: str) -> None:
    (tmp_path / "metadata.csv").write_text(text)
    with pytest.raises(ClipListError, match=match):
        read_clips(tmp_path)
    with pytest.raises(ClipListError, match=r"metadata\.csv"):
        read_clips(tmp_path.parent)


def test_what_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ClipListError, match=r"nowhere\.csv is no CSV file"):
        read_clips(tmp_path / "nowhere.csv")
    with pytest.raises(CheckpointError, match="nowhere is neither"):
        EntangleCodec.from_pretrained(tmp_path / "nowhere")
    with pytest.raises(ConfigFileError, match="cannot be read"):
        read_numbers(tmp_path / "nowhere.yaml")
    (tmp_path / "list.yaml").write_text("- 1")
    with pytest.raises(ConfigFileError, match="no mapping"):
        read_numbers(tmp_path / "list.yaml")


def test_the_encoder_has_its_own_learning_rate(trained: Path) -> None:
    optimizer = torch.load(trained / "checkpoint-8" / "optimizer.pt", weights_only=False)
    full = EntangleCodecForPreTraining.from_pretrained(trained / "pretraining")
    slow = [group for group in optimizer["param_groups"] if group["initial_lr"] == 1e-3]
    own = sum(1 for part in (full.codec.encoder, full.codec.quantizer) for _ in part.parameters())
    assert sum(len(group["params"]) for group in slow) == own
    assert sum(len(group["params"]) for group in optimizer["param_groups"]) == sum(1 for _ in full.parameters())


def test_the_average_of_the_weights_is_what_is_saved_and_resumes(clips: Path, numbers: Path, tmp_path: Path) -> None:
    more = ["--ema_decay", "0.5", "--save_steps", "6", "--save_total_limit", "9"]
    train(clips, numbers, tmp_path / "whole", *more)
    interrupt(tmp_path / "whole" / "checkpoint-6", tmp_path / "resumed")
    train(clips, numbers, tmp_path / "resumed", *more)
    whole, resumed = (load_file(tmp_path / run / "pretraining" / "model.safetensors") for run in ("whole", "resumed"))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    last = load_file(tmp_path / "whole" / "checkpoint-10" / "model.safetensors")
    name = "codec.decoder.out.weight"
    assert not torch.allclose(whole[name], last[name])
    (tmp_path / "resumed" / "checkpoint-6" / "ema.safetensors").unlink()
    shutil.rmtree(tmp_path / "resumed" / "checkpoint-10")
    (tmp_path / "resumed" / "manifest.json").unlink()
    with pytest.raises(FileNotFoundError, match="began without --ema_decay"):
        train(clips, numbers, tmp_path / "resumed", *more)


def test_moving_average_is_the_recursion() -> None:
    layer = torch.nn.Linear(2, 1, bias=False)
    average, expected = MovingAverage(layer, decay=0.9), None
    for step in range(4):
        torch.nn.init.constant_(layer.weight, float(step))
        average.on_step_end(*[None] * 3)  # type: ignore[arg-type]
        expected = float(step) if expected is None else 0.9 * expected + 0.1 * step
    average.copy_to(layer)
    torch.testing.assert_close(layer.weight, torch.full((1, 2), expected))


def test_the_switches_of_table_4(clips: Path, numbers: Path, tmp_path: Path) -> None:
    rows = list(csv.reader((clips / "metadata.csv").open()))
    table = tmp_path / "list.csv"
    with table.open("w", newline="") as file:
        csv.writer(file).writerows(
            [["file_name", "caption", "transcript"], *((clips / name, text, "words") for name, text in rows[1:])]
        )
    train(table, numbers, tmp_path / "plain", "--contrastive_weight", "0", "--max_steps", "4")
    step = log(tmp_path / "plain")[-1]
    assert step["loss"] == pytest.approx(step["flow_loss"] + step["vq_loss"], abs=1e-3)
    assert [clip.caption for clip in read_clips(table, caption_column="transcript")] == ["words"] * 12
    with pytest.raises(ClipListError, match="one of \\('speech',\\) are needed"):
        read_clips(table, caption_column="speech")


def test_a_mixture_trains_and_resumes_exactly(clips: Path, numbers: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.csv"
    rows = list(csv.reader((clips / "metadata.csv").open()))
    with other.open("w", newline="") as file:
        csv.writer(file).writerows([rows[0], *((clips / name, text) for name, text in rows[1:4])])
    more = ["--audio", str(clips), str(other), "--weights", "1", "1", "--save_steps", "5", "--save_total_limit", "9"]
    train(clips, numbers, tmp_path / "whole", *more)
    interrupt(tmp_path / "whole" / "checkpoint-5", tmp_path / "resumed")
    train(clips, numbers, tmp_path / "resumed", *more)
    whole, resumed = (load_file(tmp_path / run / "pretraining" / "model.safetensors") for run in ("whole", "resumed"))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_another_batch_than_the_asked_one_is_refused(clips: Path, numbers: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ConfigFileError, match="--effective_batch 255, but 4 rows or crops × 1 accumulation × 1 processes are 4"
    ):
        train(clips, numbers, tmp_path, "--effective_batch", "255")


@pytest.mark.parametrize("flags", [("--num_train_epochs", "2"), ("--max_steps", "-1")])
def test_epochs_are_not_taken_for_steps(
    clips: Path, numbers: Path, tmp_path: Path, flags: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        train(clips, numbers, tmp_path, *flags)
    assert "the codec's recipes count steps" in capsys.readouterr().err


def test_the_learning_rate_falls_on_a_plateau_of_a_fixed_validation_loss(
    clips: Path, numbers: Path, tmp_path: Path
) -> None:
    flags = "--lr_scheduler_type reduce_lr_on_plateau --eval_strategy steps --eval_steps 1 --metric_for_best_model eval_loss"
    more = [
        *flags.split(),
        "--lr_scheduler_kwargs",
        '{"factor": 0.5, "patience": 1, "threshold": 0.1}',
        "--validation_clips",
        "4",
    ]
    still = ["--learning_rate", "1e-6", "--encoder_learning_rate", "1e-6", "--restart_share", "0"]
    train(clips, numbers, tmp_path, *more, *still)
    lines = [json.loads(line) for line in (tmp_path / "training_log.jsonl").read_text().splitlines()]
    losses = [line["eval_loss"] for line in lines if "eval_loss" in line]
    # times and noise are fixed: a model that stands still has one loss (but for the running statistics of its latents)
    assert max(losses) - min(losses) < 0.05 * losses[0]
    rates = [line["learning_rate"] for line in lines if "learning_rate" in line]
    assert rates[-1] < rates[0]
