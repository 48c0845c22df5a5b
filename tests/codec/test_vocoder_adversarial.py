"""Our vocoder against the package `vocos`, and training with its discriminators. Runs where the extra `vocoder` is installed."""

import importlib.util
import json
import runpy
import shutil
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch import Tensor

from codec.torchaudio_guard import ensure_torchaudio

ensure_torchaudio()  # torchaudio comes with the package and may break the next import

from codec import (  # noqa: E402
    EntangleCodec,
    EntangleCodecConfig,
    EntangleCodecModel,
    VocosConfig,
    VocosModel,
    planning,
)
from codec import vocoder_adversarial as adversarial  # noqa: E402
from codec.audio import write_audio  # noqa: E402
from codec.vocoder_adversarial import AdversarialVocoderTraining, VocosPackageError, import_package  # noqa: E402
from codec.vocoder_trainer import STATE, AdversarialSetupError  # noqa: E402

needs_package = pytest.mark.skipif(
    importlib.util.find_spec("vocos") is None,
    reason="needs the package vocos: pip install -c constraints/cpu.txt -e '.[vocoder]' in a virtual environment of its own",
)
ROOT = Path(__file__).parents[2]
interrupt = runpy.run_path(str(ROOT / "tests" / "recipes" / "several_runs.py"))["interrupt"]
NUMBERS = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}


@pytest.fixture
def small_judges(monkeypatch: pytest.MonkeyPatch) -> None:
    """One discriminator of each kind: all eight have 42 million parameters."""
    monkeypatch.setattr(adversarial, "PERIODS", (2,))
    monkeypatch.setattr(adversarial, "FFT_SIZES", (512,))


@pytest.fixture
def task(small_judges: None) -> AdversarialVocoderTraining:
    torch.manual_seed(0)
    return AdversarialVocoderTraining(VocosModel(VocosConfig(**NUMBERS, mel={"mean": -6.0, "std": 3.0})))


def test_a_missing_package_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vocos", None)
    with pytest.raises(VocosPackageError, match=r"pip install .*'\.\[vocoder\]'.*--adversarial false"):
        import_package("loss")


@needs_package
def test_the_guard_lets_transformers_be_imported() -> None:
    program = (
        "from codec.torchaudio_guard import ensure_torchaudio; first = ensure_torchaudio(); assert ensure_torchaudio() == first\n"
        "import codec, vocos, torchaudio, torch; from transformers import Trainer\n"
        "assert torchaudio.transforms.MelSpectrogram()(torch.zeros(1, 16_000)).shape == (1, 128, 81)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


@needs_package
@pytest.mark.parametrize("width", [32, 512])
def test_equals_the_packages_model(width: int) -> None:
    """Backbone and head of the package on the same weights, copied by name, in both directions."""
    torch.manual_seed(0)
    numbers = {"hidden_size": width, "intermediate_size": 3 * width, "num_hidden_layers": 8}
    ours = VocosModel(VocosConfig(**numbers)).eval()
    for parameter in ours.parameters():  # so that norms, biases and scales count
        parameter.data += 0.02 * torch.randn_like(parameter)
    ours.head.out.bias.data[:961:40] = 3.0
    ours.head.out.bias.data[80] = 6.0  # e⁶ is over the head's limit of 100
    backbone = import_package("models").VocosBackbone(128, width, 3 * width, 8).eval()
    head = import_package("heads").ISTFTHead(width, 1920, 480, padding="same").eval()
    theirs = torch.nn.ModuleDict({"backbone": backbone, "head": head})
    assert theirs.state_dict().keys() == ours.state_dict().keys()
    theirs.load_state_dict(ours.state_dict(), strict=True)
    mel = torch.randn(3, 50, 128)
    with torch.no_grad():
        expected = head(backbone(mel.transpose(1, 2)))
        made = ours(mel)
    assert made.shape == expected.shape == (3, 24_000)
    torch.testing.assert_close(made, expected, atol=1e-5, rtol=1e-5)
    grown = VocosModel(VocosConfig(**numbers)).eval()
    grown.load_state_dict(theirs.state_dict(), strict=True)
    with torch.no_grad():
        assert torch.equal(grown(mel), ours(mel))


@needs_package
def test_gradients_equal_the_packages() -> None:
    torch.manual_seed(0)
    ours = VocosModel(VocosConfig(**NUMBERS))
    backbone = import_package("models").VocosBackbone(128, 32, 48, 2)
    head = import_package("heads").ISTFTHead(32, 1920, 480, padding="same")
    theirs = torch.nn.ModuleDict({"backbone": backbone, "head": head})
    theirs.load_state_dict(ours.state_dict())
    mel, target = torch.randn(2, 20, 128), 0.1 * torch.randn(2, 9_600)
    (ours(mel) - target).abs().mean().backward()
    (head(backbone(mel.transpose(1, 2))) - target).abs().mean().backward()
    for name, parameter in theirs.named_parameters():
        torch.testing.assert_close(ours.get_parameter(name).grad, parameter.grad, atol=1e-6, rtol=1e-4)


def hinge(scores: list[Tensor], sign: float) -> Tensor:
    return torch.stack([torch.relu(1 + sign * score).mean() for score in scores]).mean()


@needs_package
def test_losses_are_the_papers(task: AdversarialVocoderTraining) -> None:
    """Hinge, feature matching and log-mel written out (Vocos, section 3.3), each turn's gradients where they belong."""
    wave = 0.1 * torch.randn(2, 9_600)
    lesson = task.eval().lesson(wave)
    made = task.vocoder(lesson.heard)
    expected = {"adversarial": torch.zeros(()), "feature": torch.zeros(()), "judges": torch.zeros(())}
    for judge, weight in zip(task.judges, (1.0, 0.1), strict=True):
        of_real, of_made, maps_real, maps_made = judge(y=wave, y_hat=made)
        expected["adversarial"] += weight * hinge(of_made, -1.0)
        expected["judges"] += weight * (hinge(of_real, -1.0) + hinge(of_made, 1.0))
        for real, fake in zip(maps_real, maps_made, strict=True):
            terms = [(a - b).abs().mean() for a, b in zip(real, fake, strict=True)]
            expected["feature"] += weight * torch.stack(terms).sum() / len(maps_real)

    losses = task(wave, lesson.heard, turn="vocoder")
    torch.testing.assert_close(losses["adversarial_loss"], expected["adversarial"].detach())
    torch.testing.assert_close(losses["feature_loss"], expected["feature"].detach())
    total = losses["adversarial_loss"] + losses["feature_loss"] + 45 * losses["mel_loss"]
    torch.testing.assert_close(losses["loss"].detach(), total)
    losses["loss"].backward()
    assert all(p.grad is not None for p in task.vocoder.parameters())
    assert all(p.grad is None and p.requires_grad for p in task.judges.parameters())

    task.zero_grad()
    judges = task(wave, lesson.heard, turn="judges")["loss"]
    torch.testing.assert_close(judges, expected["judges"])
    judges.backward()
    assert all(p.grad is None for p in task.vocoder.parameters())
    assert all(p.grad is not None for p in task.judges.parameters())

    waiting = task(wave, lesson.heard, turn="vocoder", judged=False)
    assert set(waiting) == {"loss", "mel_loss"}
    torch.testing.assert_close(waiting["loss"].detach(), 45 * losses["mel_loss"])


RANKS = """
import sys, torch, torch.distributed as dist
from codec.torchaudio_guard import ensure_torchaudio
ensure_torchaudio()
from codec import VocosConfig, VocosModel, vocoder_adversarial as adversarial
adversarial.PERIODS, adversarial.FFT_SIZES = (2,), (512,)
dist.init_process_group("gloo")
rank = dist.get_rank()
assert dist.get_world_size() == 2
torch.manual_seed(0)
task = adversarial.AdversarialVocoderTraining(VocosModel(VocosConfig(hidden_size=32, intermediate_size=48, num_hidden_layers=2)))
model = torch.nn.parallel.DistributedDataParallel(task, find_unused_parameters=True)
wave = 0.1 * torch.randn(4, 4_800, generator=torch.Generator().manual_seed(1))[2 * rank : 2 * rank + 2]
lesson = task.eval().lesson(wave)
for turn in ("judges", "vocoder"):
    model(lesson.waveform, lesson.heard, turn=turn)["loss"].backward()
torch.save({name: p.grad for name, p in task.named_parameters()}, f"{sys.argv[1]}/{rank}.pt")
"""


@needs_package
@pytest.mark.slow
def test_two_ranks_equal_one(small_judges: None, tmp_path: Path) -> None:
    """Both turns' gradients, of both sides, are those of the whole batch on one rank."""
    (tmp_path / "program.py").write_text(RANKS)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    subprocess.run([*command, str(tmp_path / "program.py"), str(tmp_path)], check=True, timeout=300)
    torch.manual_seed(0)
    task = AdversarialVocoderTraining(VocosModel(VocosConfig(**NUMBERS))).eval()
    lesson = task.lesson(0.1 * torch.randn(4, 4_800, generator=torch.Generator().manual_seed(1)))
    for turn in ("judges", "vocoder"):
        task(lesson.waveform, lesson.heard, turn=turn)["loss"].backward()
    for rank in (0, 1):
        grads = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        for name, parameter in task.named_parameters():
            torch.testing.assert_close(grads[name], parameter.grad, atol=1e-5, rtol=1e-3)


# ---- the recipe


@pytest.fixture
def flags(tmp_path: Path, small_judges: None) -> list[str]:
    """A codec without a vocoder, six tones, and a command line of a few seconds."""
    rng = np.random.default_rng(0)
    lines = ["file_name,caption"]
    for n in range(6):
        tone = np.sin(2 * np.pi * 200 * (n + 1) * np.arange(9_600) / 24_000) + 0.1 * rng.standard_normal(9_600)
        write_audio(tmp_path / "clips" / f"{n}.wav", 0.3 * tone, 24_000)
        lines.append(f"{n}.wav,a tone")
    (tmp_path / "clips" / "metadata.csv").write_text("\n".join(lines) + "\n")
    small = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    numbers = {f"{part}{name}": value for part in ("", "decoder_", "text_") for name, value in small.items()}
    config = EntangleCodecConfig(**numbers, codebook_size=32, conditioning="add", mel={"mean": -6.0, "std": 3.0})
    EntangleCodec(EntangleCodecModel(config)).save_pretrained(tmp_path / "codec")
    (tmp_path / "vocoder.yaml").write_text(yaml.safe_dump(NUMBERS))
    given = {
        "codec": tmp_path / "codec",
        "audio": tmp_path / "clips",
        "vocoder": tmp_path / "vocoder.yaml",
        "adversarial": "true",
        "crop_seconds": 0.1,
        "max_steps": 4,
        "save_steps": 1,
        "save_total_limit": 9,
        "logging_steps": 1,
        "per_device_train_batch_size": 2,
        "learning_rate": 1e-3,
        "weight_decay": 0.01,
        "max_grad_norm": 0,
        "use_cpu": "true",
        "disable_tqdm": "true",
    }
    return [word for name, value in given.items() for word in (f"--{name}", str(value))]


def train(flags: list[str], output: Path, *more: str) -> list[dict[str, Any]]:
    """The training log of a run."""
    runpy.run_path(str(ROOT / "recipes" / "train_vocoder.py"))["main"]([*flags, "--output_dir", str(output), *more])
    lines = map(json.loads, (output / "training_log.jsonl").read_text().splitlines())
    return [
        {name: value for name, value in line.items() if "loss" in name or name == "learning_rate"}
        for line in lines
        if "loss" in line
    ]


def same_state(ours: Path, theirs: Path) -> None:
    """Two checkpoints are of equal weights, optimizers and schedulers, of both sides."""
    first, second = (load_file(folder / "model.safetensors") for folder in (ours, theirs))
    assert first.keys() == second.keys()
    assert any(name.startswith("judges.") for name in first)
    assert all(torch.equal(first[name], second[name]) for name in first)
    for file in ("optimizer.pt", "scheduler.pt", STATE):
        states = [torch.load(folder / file, weights_only=True) for folder in (ours, theirs)]
        torch.testing.assert_close(states[0], states[1], rtol=0, atol=0)


@needs_package
@pytest.mark.parametrize(("finetune", "steps"), [(False, (1, 3)), (True, (3,))])
def test_resume_is_exact(flags: list[str], tmp_path: Path, finetune: bool, steps: tuple[int, ...]) -> None:
    """From before and after the judges' start."""
    more = ["--pretrain_steps", "2"]
    if finetune:
        train(flags, tmp_path / "first", "--max_steps", "1")
        more += ["--finetune_on_decoder", "true"]
    log = train(flags, tmp_path / "whole", *more)
    assert ["discriminator_loss" in entry for entry in log] == [False, False, True, True]
    for step in steps:
        resumed = tmp_path / str(step)
        interrupt(tmp_path / "whole" / f"checkpoint-{step}", resumed)
        assert train(flags, resumed, *more) == log
        same_state(resumed / "checkpoint-4", tmp_path / "whole" / "checkpoint-4")
    assert not any("judges" in name for name in load_file(tmp_path / "whole" / "model.safetensors"))
    assert EntangleCodec.from_pretrained(tmp_path / "codec").decode([np.zeros((1, 5), np.int64)])[0].shape == (2_400,)


@needs_package
def test_both_sides_learn_with_their_own_optimizer(flags: list[str], tmp_path: Path) -> None:
    train(flags, tmp_path / "run")
    first, last = (load_file(tmp_path / "run" / f"checkpoint-{n}" / "model.safetensors") for n in (1, 4))
    for side in ("vocoder.", "judges."):
        learned = [name for name in first if name.startswith(side) and first[name].ndim > 1 and "fb" not in name]
        assert learned
        assert all(not torch.equal(first[name], last[name]) for name in learned)
    judges = torch.load(tmp_path / "run" / "checkpoint-4" / STATE, weights_only=True)
    assert {int(state["step"]) for state in judges["optimizer"]["state"].values()} == {4}
    group = judges["optimizer"]["param_groups"][0]
    assert (group["initial_lr"], tuple(group["betas"]), group["weight_decay"]) == (1e-3, (0.8, 0.9), 0.01)
    assert judges["scheduler"]["_last_lr"] == [0.0]


@needs_package
def test_settings_that_break_the_turns(flags: list[str], tmp_path: Path) -> None:
    with pytest.raises(AdversarialSetupError, match="--gradient_accumulation_steps 2"):
        train(flags, tmp_path / "none", "--gradient_accumulation_steps", "2")
    train(flags, tmp_path / "plain", "--adversarial", "false", "--max_steps", "2")
    shutil.copytree(tmp_path / "plain" / "checkpoint-1", tmp_path / "mixed" / "checkpoint-1")
    with pytest.raises(AdversarialSetupError, match="its run began without discriminators"):
        train(flags, tmp_path / "mixed")


@needs_package
def test_shapes_tell_what_both_turns_take(small_judges: None, monkeypatch: pytest.MonkeyPatch) -> None:
    config = VocosConfig(mel={"mean": -6.0, "std": 3.0}, **NUMBERS)
    sizes = (2, 0.2, False, True)
    planned, plain = planning.vocoder_bytes(config, *sizes), planning.vocoder_bytes(config, 2, 0.2, False)
    monkeypatch.setattr(planning, "in_shapes", nullcontext)
    taken = planning.vocoder_bytes(config, *sizes)
    assert planned[:3] == taken[:3] and planned.total == pytest.approx(taken.total, rel=0.02)
    assert planned.optimizer > plain.optimizer and planned.total > plain.total


@needs_package
def test_the_plan_counts_the_discriminators(
    flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runpy.run_path(str(ROOT / "recipes" / "train_vocoder.py"))["main"](
        [*flags, "--output_dir", str(tmp_path / "none"), "--dry_run", "--pretrain_steps", "7"]
    )
    assert "discriminators   from step 7" in capsys.readouterr().out


def test_the_papers_numbers() -> None:
    """configs/vocos.yaml of the package."""
    paper = yaml.safe_load((ROOT / "recipes" / "configs" / "paper" / "train_vocoder.yaml").read_text())
    published = {"mel_weight": 45, "mrd_weight": 0.1, "pretrain_steps": 0, "learning_rate": 5e-4, "weight_decay": 0.01}
    assert paper["adversarial"] is True
    assert {name: paper[name] for name in published} == published
    assert (paper["adam_beta1"], paper["adam_beta2"], paper["max_steps"]) == (0.8, 0.9, 1_000_000)
