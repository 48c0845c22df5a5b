"""Every configuration of every size on every machine: it parses, its batch comes out, its plan fits. Shapes only, no weights, no data."""

import json
import re
import runpy
from pathlib import Path
from typing import Any

import pytest
import yaml
from accelerate.commands.config.config_args import load_config_from_file

from alm.arguments import ConfigFileError
from alm.vocabulary import ContractError

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "recipes" / "configs"
MACHINES = {path.stem: path for path in sorted((CONFIGS / "accelerate").glob("*.yaml"))}
QWEN3 = yaml.safe_load((ROOT / "benchmarks" / "qwen3.yaml").read_text(encoding="utf-8"))
BATCH = {"pretrain": 256, "sft_understanding": 64, "train_generation": 256}
RATE = {"pretrain": 3e-5, "sft_understanding": 1e-5, "train_generation": 3e-5}
STEPS = {"pretrain": "50,000 steps", "sft_understanding": "10,000 steps", "train_generation": "3 passes"}
TOO_LARGE = {("4B", "one_gpu"), ("4B", "eight_gpus"), ("8B", "one_gpu"), ("8B", "eight_gpus")}
"""Full fine-tuning that no 80-GB GPU holds: 16 bytes a parameter and more."""


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders with nothing but the `config.json` of each published size."""
    folder = tmp_path_factory.mktemp("hub")
    common = {"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "vocab_size": 151_936, "dtype": "bfloat16"}
    for size, shape in QWEN3.items():
        (folder / size).mkdir()
        config = {**common, "head_dim": 128, "num_key_value_heads": 8, **shape}
        (folder / size / "config.json").write_text(json.dumps(config))
    return folder


def dry_run(recipe: str, config: Path, model: Path, machine: str, gpu_memory: int, *more: str) -> None:
    """The recipe's own `--dry_run`, as on a laptop."""
    main: Any = runpy.run_path(str(ROOT / "recipes" / f"{recipe}.py"))["main"]
    where = [
        "--config",
        str(config),
        "--model",
        str(model),
        "--output_dir",
        "unused",
        "--machine",
        str(MACHINES[machine]),
    ]
    main([*where, "--dry_run", "--gpu_memory", str(gpu_memory), "--tokens_per_second", "40000", *more])


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("size", QWEN3)
def test_every_size_is_planned_for_every_machine(
    size: str, machine: str, hub: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for recipe, batch in BATCH.items():
        config = CONFIGS / size.lower() / f"{recipe}.yaml"
        assert yaml.safe_load(config.read_text())["learning_rate"] == RATE[recipe]
        if (size, machine) in TOO_LARGE:
            with pytest.raises(ConfigFileError, match="GiB do not fit a GPU of 80"):
                dry_run(recipe, config, hub / size, machine, 80)
        else:
            dry_run(recipe, config, hub / size, machine, 80)
        out = capsys.readouterr().out
        found = re.search(
            r"steps of (\d+) rows × 2,048 tokens \((\d+) rows a device × (\d+) accumulated × (\d+)\)", out
        )
        assert found is not None and STEPS[recipe] in out and "168,064 rows" in out
        rows, *factors = map(int, found.groups())
        assert rows == batch == factors[0] * factors[1] * factors[2]
        assert factors[2] == load_config_from_file(str(MACHINES[machine])).num_processes
        assert ("too much" if (size, machine) in TOO_LARGE else "at most 90%: fits") in out
        assert " days for " in out or recipe == "train_generation"  # epochs of data that are not there have no end


def test_the_readme_shows_what_is_printed(hub: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dry_run("pretrain", CONFIGS / "8b" / "pretrain.yaml", hub / "8B", "zero3", 80)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    first, *others = capsys.readouterr().out.strip().splitlines()
    assert "\n".join([first.replace(str(hub / "8B"), "Qwen/Qwen3-8B"), *others]) in readme


@pytest.mark.parametrize("size", QWEN3)
def test_lora_fits_one_gpu_of_24_gb(size: str, hub: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = CONFIGS / size.lower() / "lora.yaml"
    for recipe in BATCH:
        dry_run(recipe, config, hub / size, "one_gpu", 24)
        out = capsys.readouterr().out
        assert "LoRA of rank 32 and the new rows" in out and "of 256 rows" in out and STEPS[recipe] in out
    if size == "8B":
        with pytest.raises(ConfigFileError, match="do not fit a GPU of 24"):
            dry_run("pretrain", config, hub / size, "one_gpu", 24, "--quantize_base", "false")
    with pytest.raises(ContractError, match="ZeRO-2"):
        dry_run("pretrain", config, hub / size, "zero3", 80)


CODEC_FLAGS = {
    "train_codec": [],
    "refine_codec": [
        *("--codec", str(CONFIGS / "paper" / "codec.yaml"), "--tokens", "not-read", "--audio", "not-read"),
        *("--discriminator", str(CONFIGS / "paper" / "discriminator.yaml")),
    ],
    "train_discriminator": [
        *("--codec", str(CONFIGS / "paper" / "codec.yaml"), "--tokens", "not-read", "--audio", "not-read"),
    ],
    "train_vocoder": ["--codec", str(CONFIGS / "paper" / "codec.yaml"), "--audio", "not-read"],
}


def codec_dry_run(recipe: str, machine: str, *more: str) -> None:
    main: Any = runpy.run_path(str(ROOT / "recipes" / f"{recipe}.py"))["main"]
    config = CONFIGS / "paper" / f"{recipe}.yaml"
    machine_flags = ["--dry_run", "--machine", str(MACHINES[machine]), "--gpu_memory", "80"]
    main(["--config", str(config), "--output_dir", "unused", *CODEC_FLAGS[recipe], *machine_flags, *more])


@pytest.mark.parametrize(("recipe", "steps"), [("train_codec", "500,000"), ("refine_codec", "200,000")])
def test_the_papers_codec_is_planned_for_eight_gpus(
    recipe: str, steps: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)  # the configurations name their files from there
    codec_dry_run(recipe, "eight_gpus")
    out = capsys.readouterr().out
    assert "256 crops of up to 10 s (8 a device × 4 accumulated × 8 devices)" in out
    assert f"{steps}\n" in out and "305.71 M" in out and "at most 90%: fits" in out
    codec_dry_run(recipe, "one_gpu", "--gradient_accumulation_steps", "32")
    assert "(8 a device × 32 accumulated × 1 devices)" in capsys.readouterr().out
    with pytest.raises(ConfigFileError, match="do not fit a GPU of 24"):
        codec_dry_run(
            recipe,
            "eight_gpus",
            *("--gpu_memory", "24", "--per_device_train_batch_size", "16"),
            *("--gradient_accumulation_steps", "2"),
        )
    with pytest.raises(ConfigFileError, match="--effective_batch 256, but 8 rows or crops × 4"):
        codec_dry_run(recipe, "one_gpu")
    with pytest.raises(ConfigFileError, match="whole weights on every device"):
        codec_dry_run(recipe, "zero2")


@pytest.mark.parametrize(
    ("recipe", "more", "steps"),
    [("train_discriminator", [], "30,000"), ("train_vocoder", ["--adversarial", "false"], "1,000,000")],
)
def test_the_papers_small_models_are_planned(
    recipe: str, more: list[str], steps: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    codec_dry_run(recipe, "eight_gpus", *more)
    out = capsys.readouterr().out
    assert "clips            not read" in out and f"{steps}\n" in out and "at most 90%: fits" in out
    with pytest.raises(ConfigFileError, match=r"do not fit a GPU of 0\.1"):
        codec_dry_run(recipe, "one_gpu", *more, "--gpu_memory", "0.1")
    with pytest.raises(ConfigFileError, match="whole weights on every device"):
        codec_dry_run(recipe, "zero2", *more)


def test_what_cannot_be_planned_is_refused(hub: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = CONFIGS / "0.6b" / "sft_understanding.yaml"
    with pytest.raises(ContractError, match=r"no config\.json"):
        dry_run("pretrain", config, tmp_path, "one_gpu", 80)
    with pytest.raises(ConfigFileError, match="--effective_batch 60, but 4 rows"):
        dry_run("sft_understanding", config, hub / "0.6B", "zero2", 80, "--effective_batch", "60")
    for recipe in ("pretrain", "sft_understanding"):
        with pytest.raises(SystemExit):
            dry_run(recipe, config, hub / "0.6B", "zero2", 80, "--dry_run", "false")
        assert "--machine plans for another machine; it needs --dry_run" in capsys.readouterr().err
