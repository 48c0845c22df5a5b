"""`recipes/sft_understanding.py` through its own `main()`, and for real."""

import json
import os
import re
import runpy
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from alm.checkpoint import load_checkpoint
from alm.data.example import DataError
from alm.vocabulary import ContractError

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "recipes" / "sft_understanding.py"
FAST = ["--learning_rate", "5e-3", "--max_length", "256", "--per_device_train_batch_size", "1", "--logging_steps", "1"]
FAST += ["--gradient_checkpointing", "false", "--disable_tqdm", "true", "--warmup_steps", "0"]

LORA = ["--max_steps", "8", "--save_steps", "3", "--save_total_limit", "9", "--lora_rank", "4", "--lora_dropout", "0.1"]
LORA += ["--learning_rate", "3e-2"]


@pytest.fixture(scope="session")
def main() -> Any:
    return runpy.run_path(str(SCRIPT))["main"]


def arguments(workshop: Any, output: Path, *more: str) -> list[str]:
    fixed = ["--model", str(workshop.model), "--tokens", str(workshop.tokens), "--output_dir", str(output)]
    return [*fixed, *workshop.data(), *FAST, *more]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def same(first: Path, second: Path) -> bool:
    one, other = weights(first), weights(second)
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def log(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "training_log.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def trained(main: Any, workshop: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole run of 12 steps with a checkpoint every 5."""
    output = tmp_path_factory.mktemp("trained") / "lm"
    main(arguments(workshop, output, "--max_steps", "12", "--save_steps", "5", "--save_total_limit", "9"))
    return output


def test_it_learns_and_ends_as_a_complete_checkpoint(workshop: Any, trained: Path) -> None:
    losses = [line["loss"] for line in log(trained) if "loss" in line]
    assert len(losses) == 12 and losses[-1] < losses[0] - 0.5
    model, processor = load_checkpoint(trained)
    assert processor.codec is not None and not same(trained, workshop.model)
    assert not (trained / "sequences").exists() and not (trained / "training_args.bin").exists()
    manifest = json.loads((trained / "manifest.json").read_text())
    assert manifest["vocabulary"] == processor.vocabulary.hash and manifest["sequences"]["examples"] == {
        "musicqa": 12,
        "clothoaqa": 12,
    }
    assert manifest["token_store"]["codec_fingerprint"] == processor.codec.fingerprint
    assert manifest["training"]["train_loss"] > 0 and len(manifest["files"]) == 2 and manifest["versions"]["trl"]
    assert manifest["base_model"]["name"] == str(workshop.model)
    assert list(manifest["base_model"]["weights"]) == ["model.safetensors"]
    assert manifest["codec"] == processor.codec.fingerprint and len(manifest["data"]["digest"]) == 16
    assert [one["name"] for one in manifest["data"]["sets"]] == ["musicqa", "clothoaqa"]
    assert model.config.use_cache is True
    load_checkpoint(trained / "checkpoint-10")


def test_what_cannot_be_is_said_before_the_data_are_read(main: Any, workshop: Any, tmp_path: Path, capsys: Any) -> None:
    output = tmp_path / "lm"
    with pytest.raises(SystemExit):
        main(arguments(workshop, output, "--samples", "ask=a", "--samples_steps", "0"))
    assert "--samples_steps must be 1 or more" in capsys.readouterr().err
    with pytest.raises(DataError, match="flash_attn is not installed"):
        main(arguments(workshop, output, "--attention", "flash_attention_2"))
    with pytest.raises(DataError, match=r"there is no file gone\.wav"):
        main(arguments(workshop, output, "--samples", "ask=gone.wav|a"))
    assert not output.exists()


def test_an_epoch_is_a_pass_over_the_data(main: Any, workshop: Any, tmp_path: Path, capsys: Any) -> None:
    epochs = ["--max_steps", "-1", "--num_train_epochs", "2", "--save_strategy", "epoch", "--logging_strategy", "epoch"]
    main(arguments(workshop, tmp_path / "lm", *epochs))
    packed = re.search(r"packed +(\d+) rows", capsys.readouterr().out)
    assert packed is not None
    steps = [int(packed[1]), 2 * int(packed[1])]  # of one row each
    assert {path.name for path in (tmp_path / "lm").glob("checkpoint-*")} == {f"checkpoint-{step}" for step in steps}
    assert [line["step"] for line in log(tmp_path / "lm") if "loss" in line] == steps


def interrupted(trained: Path, output: Path, step: int) -> Path:
    """The folder as a kill between `step` and the next checkpoint leaves it."""
    output.mkdir()
    shutil.copytree(trained / f"checkpoint-{step}", output / f"checkpoint-{step}")
    shutil.copy(trained / "training_log.jsonl", output)
    return output


@pytest.mark.parametrize("step", [5, 10, 12])
def test_the_same_command_goes_on_to_the_same_weights(
    main: Any, workshop: Any, trained: Path, tmp_path: Path, step: int
) -> None:
    output = interrupted(trained, tmp_path / "lm", step)
    main(arguments(workshop, output, "--max_steps", "12", "--save_steps", "5", "--save_total_limit", "9"))
    assert same(output, trained)
    losses = [(line["step"], line["loss"]) for line in log(output) if "loss" in line]
    assert losses == [(line["step"], line["loss"]) for line in log(trained) if "loss" in line]
    assert (output / "manifest.json").is_file()


@pytest.fixture(scope="module")
def adapted(main: Any, workshop: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole LoRA run of 8 steps with a checkpoint every 3."""
    output = tmp_path_factory.mktemp("adapted") / "lm"
    main(arguments(workshop, output, *LORA))
    return output


def test_lora_learns_and_ends_as_a_complete_checkpoint(workshop: Any, adapted: Path) -> None:
    losses = [line["loss"] for line in log(adapted) if "loss" in line]
    assert len(losses) == 8 and losses[-1] < losses[0] - 0.3
    model, processor = load_checkpoint(adapted)
    base, merged = weights(workshop.model), weights(adapted)
    assert base.keys() == merged.keys() and processor.codec is not None and model.config.use_cache is True
    embedding, start = "model.embed_tokens.weight", processor.vocabulary.start_id
    assert torch.equal(merged[embedding][:start], base[embedding][:start])
    assert not torch.equal(merged[embedding], base[embedding])
    adapter = load_checkpoint(adapted / "adapter").model.state_dict()
    for name, value in merged.items():
        torch.testing.assert_close(adapter[name], value, atol=1e-6, rtol=0)
    named = json.loads((adapted / "adapter" / "adapter_config.json").read_text())["base_model_name_or_path"]
    assert named == str(workshop.model)
    manifest = json.loads((adapted / "manifest.json").read_text())
    assert manifest["lora"] == {"rank": 4, "alpha": 8, "dropout": 0.1}
    assert 0 < manifest["parameters"]["trained"] < manifest["parameters"]["total"]
    load_checkpoint(adapted / "checkpoint-6")


def test_lora_on_a_base_in_4_bits_leaves_the_base_whole(main: Any, workshop: Any, tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    main(arguments(workshop, tmp_path / "lm", "--quantize_base", *LORA))
    losses = [line["loss"] for line in log(tmp_path / "lm") if "loss" in line]
    assert len(losses) == 8 and losses[-1] < losses[0] - 0.3
    base, merged = weights(workshop.model), weights(tmp_path / "lm")
    adapter = load_file(tmp_path / "lm" / "adapter" / "adapter_model.safetensors")
    assert base.keys() == merged.keys() and {value.dtype for value in adapter.values()} == {torch.float32}
    layer = "model.layers.0.self_attn.q_proj"
    down, up = (adapter[f"base_model.model.{layer}.lora_{name}.weight"] for name in "AB")
    update = merged[f"{layer}.weight"] - base[f"{layer}.weight"]  # of the base as it was, not as 4 bits hold it
    torch.testing.assert_close(update, 2 * up @ down, atol=1e-6, rtol=1e-4)
    manifest = json.loads((tmp_path / "lm" / "manifest.json").read_text())
    count = sum(value.numel() for value in adapter.values())
    assert manifest["parameters"] == {"total": sum(v.numel() for v in base.values()) + count, "trained": count}


@pytest.mark.parametrize("step", [3, 8])
def test_lora_goes_on_to_the_same_weights(main: Any, workshop: Any, adapted: Path, tmp_path: Path, step: int) -> None:
    output = interrupted(adapted, tmp_path / "lm", step)
    main(arguments(workshop, output, *LORA))
    assert same(output, adapted)
    one, other = (load_file(folder / "adapter" / "adapter_model.safetensors") for folder in (output, adapted))
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
    losses = [(line["step"], line["loss"]) for line in log(output) if "loss" in line]
    assert losses == [(line["step"], line["loss"]) for line in log(adapted) if "loss" in line]


def test_another_tuning_cannot_go_on(main: Any, workshop: Any, adapted: Path, tmp_path: Path) -> None:
    output = interrupted(adapted, tmp_path / "lm", 3)
    with pytest.raises(DataError, match=r"was trained with LoRA of rank 4, .*asks for full fine-tuning"):
        main(arguments(workshop, output, "--max_steps", "8"))
    main(arguments(workshop, output, "--max_steps", "2", "--overwrite_output"))
    assert not (output / "adapter").exists()


def test_a_finished_run_is_not_touched_unless_told(main: Any, workshop: Any, trained: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="finished run"):
        main(arguments(workshop, trained, "--max_steps", "12"))
    output = tmp_path / "lm"
    shutil.copytree(trained, output)
    main(arguments(workshop, output, "--max_steps", "2", "--overwrite_output"))
    assert [line["step"] for line in log(output)] == [1, 2, 2]
    assert [path.name for path in output.glob("checkpoint-*")] == ["checkpoint-2"]


def test_other_data_cannot_go_on(main: Any, workshop: Any, trained: Path, tmp_path: Path) -> None:
    output = interrupted(trained, tmp_path / "lm", 5)
    with pytest.raises(DataError, match="data differ"):
        (output / "sequences").mkdir()
        (output / "sequences" / "data.json").write_text('{"digest": "0000000000000000"}')
        main(arguments(workshop, output, "--max_steps", "12"))


def test_dry_run_and_preview_write_nothing(
    main: Any, workshop: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(arguments(workshop, tmp_path / "lm", "--dry_run", "--questions_per_conversation", "4"))
    out = capsys.readouterr().out
    assert "musicqa        12 rows, 12 examples; dropped: none" in out
    assert "12 of 24 examples; 0 too long, 0 without tokens" in out  # two and two questions about each of six clips
    assert "10,000 steps" in out and " rows × 256 tokens (" in out and "float32 on 1 × CPU" in out and "GiB" in out
    assert "parameters: full fine-tuning" in out
    main(arguments(workshop, tmp_path / "lm", "--dry_run", "--lora_rank", "4"))
    assert "parameters: LoRA of rank 4 and the new rows" in capsys.readouterr().out
    main(arguments(workshop, tmp_path / "lm", "--preview", "2"))
    out = capsys.readouterr().out
    assert out.count("⟦") == 2 and re.search(r"\(clip \w{8}, 9 frames\)<\|audio_end\|>Which sound is 0\?", out)
    assert not (tmp_path / "lm").exists()


def test_replay_keeps_its_share(main: Any, workshop: Any, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "text.txt").write_text("\n\n".join(["Is it loud?"] * 50))
    more = ["--replay", str(tmp_path / "text.txt"), "--replay_share", "0.5", "--max_length", "64"]
    main(arguments(workshop, tmp_path / "lm", "--dry_run", *more))
    share = re.search(r"mixture +([\d.]+)% text as_it_is", capsys.readouterr().out)
    assert share is not None and abs(float(share[1]) - 50) < 10


def test_another_codec_s_tokens_are_refused(main: Any, workshop: Any, tmp_path: Path) -> None:
    store = tmp_path / "tokens"
    shutil.copytree(workshop.tokens, store)
    text = (store / "store.json").read_text()
    found = re.search(r'"codec_fingerprint": "(\w+)"', text)
    assert found is not None
    (store / "store.json").write_text(text.replace(found[1], "0" * 16))
    wrong = ["--model", str(workshop.model), "--tokens", str(store), "--output_dir", str(tmp_path / "lm")]
    with pytest.raises(ContractError, match="0000000000000000"):
        main([*wrong, *workshop.data(), *FAST])


def test_refusals(main: Any, workshop: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = ["--model", "m", "--tokens", "t", "--output_dir", str(tmp_path / "lm")]
    for wrong, message in [
        (base, "at least one data set"),
        ([*base, "--musicqa", "x.json"], "--musicqa and --musicqa_audio go together"),
        ([*base, *workshop.data(), "--learning_rat", "3"], "did you mean --learning_rate"),
        ([*base, *workshop.data(), "--packing", "false"], "trained packed"),
        ([*base, *workshop.data(), "--lora_alpha", "8"], "need a --lora_rank"),
        ([*base, *workshop.data(), "--lora_dropout", "0.1"], "needs a --lora_rank"),
        ([*base, *workshop.data(), "--lora_rank", "-1"], "need a --lora_rank"),
    ]:
        with pytest.raises(SystemExit) as exit_info:
            main(wrong)
        assert exit_info.value.code == 2 and message in capsys.readouterr().err
    with pytest.raises(DataError, match=r"tokens, but sequences have at most 20.*--too_long skip"):
        main(arguments(workshop, tmp_path / "lm", "--max_length", "20"))


def test_help_is_light() -> None:
    code = f"""
import runpy, sys
sys.argv = ["sft_understanding.py", "--help"]
try:
    runpy.run_path({str(SCRIPT)!r}, run_name="__main__")
except SystemExit:
    assert not {{"torch", "trl"}} & sys.modules.keys()
"""
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert "accelerate launch recipes/sft_understanding.py" in out and "--help_all" in out and "(Table 6)" in out


@pytest.mark.slow
@pytest.mark.parametrize("rank", ["0", "4"])
def test_two_processes_equal_one_with_twice_the_batch(main: Any, workshop: Any, tmp_path: Path, rank: str) -> None:
    # an odd last row would be given to both processes
    steps = ["--max_steps", "6", "--max_grad_norm", "0.5", "--dataloader_drop_last", "true", "--lora_rank", rank]
    # more rows than one, and an odd number of them: a process has one more than the other
    (tmp_path / "text.txt").write_text("\n\n".join(["Is it far? " * 40] * 9))
    steps += ["--text_loss", str(tmp_path / "text.txt")]
    main([*arguments(workshop, tmp_path / "one", *steps), "--per_device_train_batch_size", "2"])
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(SCRIPT)]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, *arguments(workshop, tmp_path / "two", *steps)], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "float32 on 2 × CPU" in done.stdout  # two of the obvious ways to start two processes silently start one
    losses = [[line for line in log(tmp_path / name) if "text_loss" in line] for name in ("one", "two")]
    assert len(losses[0]) == 2 and losses[0][0]["text_loss"] > losses[0][1]["text_loss"]
    for a, b in zip(*losses, strict=True):
        assert a["text_loss"] == pytest.approx(b["text_loss"], rel=1e-4)
        assert a["text_loss_among_text"] == pytest.approx(b["text_loss_among_text"], rel=1e-4)
    one, two = ([line for line in log(tmp_path / name) if "loss" in line] for name in ("one", "two"))
    for a, b in zip(one, two, strict=True):
        for name in ("loss", "grad_norm", "mean_token_accuracy"):
            assert a[name] == pytest.approx(b[name], rel=1e-3)
    for name, value in weights(tmp_path / "one").items():
        torch.testing.assert_close(weights(tmp_path / "two")[name], value, atol=2e-4, rtol=0)


@pytest.mark.slow
def test_kill_and_go_on(main: Any, workshop: Any, tmp_path: Path) -> None:
    steps = ["--max_steps", "120", "--save_steps", "20", "--learning_rate", "1e-3"]
    main(arguments(workshop, tmp_path / "whole", *steps))
    command = [sys.executable, str(SCRIPT), *arguments(workshop, tmp_path / "killed", *steps)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while not (tmp_path / "killed" / "checkpoint-40").exists() and process.poll() is None:
            time.sleep(0.005)
        process.kill()  # perhaps in the middle of writing it
    assert not (tmp_path / "killed" / "manifest.json").exists()
    main(arguments(workshop, tmp_path / "killed", *steps))
    assert same(tmp_path / "whole", tmp_path / "killed")


@pytest.mark.slow
def test_accelerate_launch(workshop: Any, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "1", str(SCRIPT)]
    done = subprocess.run(
        [*command, *arguments(workshop, tmp_path / "lm", "--max_steps", "2")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    load_checkpoint(tmp_path / "lm")
    again = subprocess.run([*command, *arguments(workshop, tmp_path / "lm")], capture_output=True, text=True)
    assert again.returncode == 1 and "error: " in again.stderr and "finished run" in again.stderr
    assert "raise DataError" not in again.stderr  # one line of ours (the launcher adds its own report of the exit code)
