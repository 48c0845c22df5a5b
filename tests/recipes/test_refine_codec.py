"""`recipes/train_discriminator.py` and `recipes/refine_codec.py` through their own `main()`, and one killed for real."""

import csv
import json
import os
import runpy
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from alm.arguments import ConfigFileError
from alm.data.coded_clips import StoredCodes, read_coded_clips
from alm.data.example import DataError
from alm.data.tokens import TokenStore
from alm.data.tokens_build import build_token_store
from alm.vocabulary import ContractError
from codec import EntangleCodec, EntangleCodecConfig, EntangleCodecModel
from codec.audio import write_audio
from codec.discriminator import DiscriminatorError, load_discriminator
from codec.parts_trainer import stopped
from codec.refinement import RefinementError
from codec.zoo import load_codec

ROOT = Path(__file__).parents[2]
interrupt = runpy.run_path(str(ROOT / "tests" / "recipes" / "several_runs.py"))["interrupt"]
SMALL = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
VOCODER = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
FAST = ["--per_device_train_batch_size", "2", "--disable_tqdm", "true", "--use_cpu", "true", "--logging_steps", "1"]
FAST += ["--crop_seconds", "0.4", "--warmup_steps", "0"]


def make_codec(folder: Path, **numbers: Any) -> Path:
    torch.manual_seed(1)
    small = {f"{part}{name}": value for part in ("", "decoder_", "text_") for name, value in SMALL.items()}
    config = EntangleCodecConfig(
        **small, codebook_size=32, projection_size=8, text_vocab_size=64, conditioning="add", vocoder=VOCODER, **numbers
    )
    EntangleCodec(EntangleCodecModel(config)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stage-1 codec with a vocoder, seven clips, their tokens, and a discriminator with its witness."""
    folder = tmp_path_factory.mktemp("stage2")
    for n in range(7):
        wave = np.random.default_rng(n).uniform(-0.5, 0.5, 9_000 + 1_500 * n)
        write_audio(folder / "audio" / f"{n}.wav", wave, 24_000)
    codec = EntangleCodec.from_pretrained(make_codec(folder / "codec"))
    build_token_store(sorted((folder / "audio").glob("*.wav")), codec, folder / "tokens", progress=False)
    numbers = folder / "discriminator.yaml"
    numbers.write_text(yaml.safe_dump({"windows": [8, 16], "hidden_size": 8}))
    for name, seed in (("critic", "1"), ("witness", "2")):
        more = ["--max_steps", "6", "--save_steps", "4", "--save_total_limit", "9", "--seed", seed]
        train_discriminator(folder, folder / name, *more)
    return folder


def script(name: str) -> Callable[[list[str]], None]:
    main: Callable[[list[str]], None] = runpy.run_path(str(ROOT / "recipes" / name))["main"]
    return main


def base(shop: Path, output: Path) -> list[str]:
    flags = ["--codec", str(shop / "codec"), "--tokens", str(shop / "tokens"), "--audio", str(shop / "audio")]
    return [*flags, "--output_dir", str(output), *FAST]


def train_discriminator(shop: Path, output: Path, *more: str) -> None:
    numbers = ["--discriminator", str(shop / "discriminator.yaml"), "--learning_rate", "1e-2"]
    script("train_discriminator.py")([*base(shop, output), *numbers, *more])


def refine_flags(shop: Path, output: Path, *more: str) -> list[str]:
    flags = ["--discriminator", str(shop / "critic"), "--learning_rate", "1e-3", "--gradient_accumulation_steps", "1"]
    flags += ["--max_steps", "9", "--save_steps", "5", "--save_total_limit", "9", "--ramp_steps", "4"]
    return [*base(shop, output), *flags, *more]


def refine(shop: Path, output: Path, *more: str) -> None:
    script("refine_codec.py")(refine_flags(shop, output, *more))


def log(folder: Path) -> list[dict[str, Any]]:
    """The training log without times."""
    lines = [json.loads(line) for line in (folder / "training_log.jsonl").read_text().splitlines()]
    return [{**line, "seconds": 0} for line in lines if "train_runtime" not in line]


def same_weights(one: Path, other: Path) -> bool:
    a, b = load_file(one / "model.safetensors"), load_file(other / "model.safetensors")
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def refined(shop: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("refined")
    refine(shop, output, "--witness", str(shop / "witness"))
    return output


def test_stage_two_changes_the_decoder_and_nothing_else(shop: Path, refined: Path) -> None:
    before, after = (load_file(folder / "model.safetensors") for folder in (shop / "codec", refined))
    assert before.keys() == after.keys()  # a complete codec, vocoder included; no caption tower
    changed = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"decoder"}
    stage1, stage2 = EntangleCodec.from_pretrained(shop / "codec"), load_codec(refined)
    assert stage2.fingerprint == stage1.fingerprint
    wave = np.random.default_rng(9).uniform(-0.5, 0.5, 9_999).astype(np.float32)
    codes = stage2.encode([wave])
    assert np.array_equal(codes[0], stage1.encode([wave])[0])
    TokenStore.open(shop / "tokens", stage2.fingerprint)
    made = stage2.decode(codes)[0]
    assert made.shape == (21 * 480,) and not np.array_equal(made, stage1.decode(codes)[0])
    manifest = json.loads((refined / "manifest.json").read_text())
    assert manifest["fingerprint"] == stage1.fingerprint and manifest["vq_loss"] > 0
    assert manifest["token_store"]["codec_fingerprint"] == stage1.fingerprint


def test_the_log_holds_the_parts_of_eq_13_and_the_guards(refined: Path) -> None:
    lines = log(refined)
    assert [line["step"] for line in lines] == list(range(1, 10))
    for line in lines:
        ramp = min(1.0, line["step"] / 4)
        total = line["flow_loss"] + line["vq_loss"] + ramp * line["adversarial_loss"]
        assert line["loss"] == pytest.approx(total, abs=1e-4)
        assert {"endpoint_l1", "std_ratio", "mean_shift", "critic_margin", "witness_margin"} <= line.keys()
    assert len({line["vq_loss"] for line in lines}) == 1  # a constant


@pytest.fixture(scope="module", params=[False, True], ids=["frozen", "trainable"])
def whole(
    shop: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> tuple[Path, list[str]]:
    """An uninterrupted run, its discriminator frozen or trained along, and the flags that make it so."""
    more = ["--discriminator_trainable", str(request.param), "--ema_decay", "0.9"]
    output = tmp_path_factory.mktemp("whole")
    refine(shop, output, *more)
    return output, more


def test_resume_in_mid_epoch_is_exact(shop: Path, tmp_path: Path, whole: tuple[Path, list[str]]) -> None:
    done, more = whole  # four steps an epoch, a checkpoint at step five
    interrupt(done / "checkpoint-5", tmp_path)
    refine(shop, tmp_path, *more)
    assert same_weights(done, tmp_path) and log(done) == log(tmp_path)
    files = {path.name for path in (done / "checkpoint-5").iterdir()}
    trainable = more[1] == "True"
    assert ({"critic.safetensors", "critic_optimizer.pt"} <= files) == trainable
    if trainable:
        assert same_weights(done / "discriminator", tmp_path / "discriminator")
        assert not same_weights(done / "discriminator", shop / "critic")
    last, saved = (load_file(path / "model.safetensors") for path in (done / "checkpoint-9", done))
    assert not torch.equal(last["decoder.out.weight"], saved["decoder.out.weight"])  # the average is what is saved


def test_a_run_killed_before_its_manifest_is_only_finished(
    shop: Path, tmp_path: Path, whole: tuple[Path, list[str]]
) -> None:
    done, more = whole
    interrupt(done / "checkpoint-9", tmp_path)
    refine(shop, tmp_path, *more)
    assert same_weights(done, tmp_path) and log(done) == log(tmp_path)
    if more[1] == "True":
        assert same_weights(done / "discriminator", tmp_path / "discriminator")
    with pytest.raises(DataError, match="holds a finished run"):
        refine(shop, tmp_path, *more)


def test_a_guard_ends_the_run_for_good(shop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    more = ["--endpoint_limit", "0.001"]  # any error is over it
    refine(shop, tmp_path, *more)
    assert "ended at step 2: endpoint error" in capsys.readouterr().out
    assert "endpoint error" in str(stopped(str(tmp_path / "checkpoint-2")))
    (tmp_path / "manifest.json").unlink()
    refine(shop, tmp_path, *more)  # killed after the guard spoke: it does not train on
    assert not (tmp_path / "checkpoint-5").exists()
    assert len(log(tmp_path)) == 2 and "stopped" in log(tmp_path)[-1]


def test_sampler_flags_stay_in_the_refined_codec(
    shop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ["--num_steps", "2", "--guidance_scale", "0.5", "--max_steps", "1", "--vq_clips", "0"]
    refine(shop, tmp_path, *more, "--validation_clips", "2", "--eval_strategy", "steps", "--eval_steps", "1")
    assert "sampler          2 step(s), guidance 0.5" in capsys.readouterr().out
    config = EntangleCodec.from_pretrained(tmp_path).model.config
    assert (config.num_steps, config.guidance_scale) == (2, 0.5)
    assert any("eval_loss" in line for line in log(tmp_path))
    assert log(tmp_path)[0]["vq_loss"] == 0


def test_what_does_not_fit_is_told(shop: Path, tmp_path: Path) -> None:
    torch.manual_seed(5)
    other = make_codec(tmp_path / "other", mel={"mean": -4.0})
    with pytest.raises(ContractError, match="was made with codec"):
        refine(shop, tmp_path / "out", "--codec", str(other))
    codec = EntangleCodec.from_pretrained(other)
    build_token_store(sorted((shop / "audio").glob("*.wav")), codec, tmp_path / "tokens", progress=False)
    with pytest.raises(DiscriminatorError, match="the discriminator was trained on"):
        refine(shop, tmp_path / "out", "--codec", str(other), "--tokens", str(tmp_path / "tokens"))
    with pytest.raises(RefinementError, match="shorter than every window"):
        refine(shop, tmp_path / "out", "--crop_seconds", "0.1")
    write_audio(tmp_path / "more" / "new.wav", np.zeros(5_000), 24_000)
    with pytest.raises(DataError, match=r"1 of 1 clips have no codes\. The first: .*new\.wav is not in token store"):
        refine(shop, tmp_path / "out", "--audio", str(shop / "audio"), str(tmp_path / "more"))
    with pytest.raises(SystemExit):
        refine(shop, tmp_path / "out", "--sampled_share", "0")
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_a_run_goes_on_only_with_what_it_began_with(shop: Path, tmp_path: Path) -> None:
    refine(shop, tmp_path, "--max_steps", "5")
    (tmp_path / "manifest.json").unlink()
    other = [["--discriminator", str(shop / "witness")], ["--witness", str(shop / "witness")]]
    other += [["--validation_clips", "2"], ["--discriminator_trainable", "true"], ["--ema_decay", "0.9"]]
    for flags in other:
        with pytest.raises(DataError, match=f"the training data differ .*{flags[0].removeprefix('--')} .*, then "):
            refine(shop, tmp_path, *flags)


def test_the_discriminator_goes_on_only_with_what_it_began_with(shop: Path, tmp_path: Path) -> None:
    interrupt(shop / "critic" / "checkpoint-4", tmp_path / "run")
    changed = EntangleCodec.from_pretrained(shop / "codec")
    torch.nn.init.normal_(changed.model.decoder.out.weight)
    changed.save_pretrained(tmp_path / "changed")  # of the same fingerprint: encoder and quantizer are the same
    began = ["--max_steps", "6", "--seed", "1"]
    for flag, value in (("codec", tmp_path / "changed"), ("crop_seconds", 0.3), ("validation_clips", 2), ("seed", 3)):
        with pytest.raises(DataError, match="decoder" if flag == "codec" else flag):
            train_discriminator(shop, tmp_path / "run", *began, f"--{flag}", str(value))


def test_dry_run_prints_the_plan(shop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refine(shop, tmp_path / "none", "--dry_run")
    printed = capsys.readouterr().out
    assert "clips            7 (0 held out" in printed and "frozen" in printed and "effective batch  2 crops" in printed
    train_discriminator(shop, tmp_path / "none", "--dry_run")
    assert "windows of [8, 16] frames, hinge" in capsys.readouterr().out
    assert not (tmp_path / "none").exists()


def test_the_discriminator_resumes_exactly_and_ends_as_a_folder(shop: Path, tmp_path: Path) -> None:
    interrupt(shop / "critic" / "checkpoint-4", tmp_path)
    more = ["--max_steps", "6", "--save_steps", "4", "--save_total_limit", "9", "--seed", "1"]
    train_discriminator(shop, tmp_path, *more)
    assert same_weights(shop / "critic", tmp_path) and log(shop / "critic") == log(tmp_path)
    spec = EntangleCodec.from_pretrained(shop / "codec").model.config.mel_spec
    assert load_discriminator(tmp_path, spec).sizes == [8, 16]
    assert {"discriminator_loss", "r1", "margin", "accuracy"} <= log(tmp_path)[-1].keys()
    assert not same_weights(shop / "critic", shop / "witness")


def test_the_discriminators_training_ends_at_the_held_out_accuracy(
    shop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ["--stop_accuracy", "0.01", "--validation_clips", "3", "--eval_strategy", "steps", "--eval_steps", "2"]
    train_discriminator(shop, tmp_path, *more, "--max_steps", "20")
    assert "has reached --stop_accuracy 0.01" in capsys.readouterr().out
    assert log(tmp_path)[-1]["step"] < 20
    with pytest.raises(ConfigFileError, match=r"--stop_accuracy 0\.01 needs --eval_strategy"):
        train_discriminator(shop, tmp_path / "none", *more[:4])


def test_clips_come_from_folders_lists_and_tables(shop: Path, tmp_path: Path) -> None:
    store = TokenStore.open(shop / "tokens")
    files = sorted((shop / "audio").glob("*.wav"))
    with (tmp_path / "list.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("file_name", "caption"), *((path, "noise") for path in files)])
    (tmp_path / "list.txt").write_text("\n".join(map(str, files)))
    sources = [str(shop / "audio"), str(tmp_path / "list.csv"), str(tmp_path / "list.txt")]
    found = [read_coded_clips([source], store, held_out=2) for source in sources]
    assert len({clips.digest for clips in found}) == 1
    assert all([clip.audio for clip in clips.held_out] == files[:2] and clips.total == 5 for clips in found)
    codes = StoredCodes(store)
    assert np.array_equal(codes(files[3]), codes(files[3].read_bytes()))


def test_files_that_could_not_be_encoded_are_left_out(shop: Path, tmp_path: Path) -> None:
    shutil.copytree(shop / "audio", tmp_path / "audio")
    (tmp_path / "audio" / "broken.wav").write_text("no audio")
    codec = EntangleCodec.from_pretrained(shop / "codec")
    files = sorted((tmp_path / "audio").glob("*.wav"))
    build_token_store(files, codec, tmp_path / "tokens", progress=False, max_missing=0.5)
    clips = read_coded_clips([str(tmp_path / "audio")], TokenStore.open(tmp_path / "tokens"))
    assert (clips.total, clips.left_out) == (7, 1)


def test_codes_of_other_audio_are_noticed(shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = StoredCodes.__call__
    monkeypatch.setattr(StoredCodes, "__call__", lambda self, audio: (wrong(self, audio) + 1) % 32)
    with pytest.raises(RefinementError, match="the codec gives only 0% of the stored codes of 7 clips again"):
        refine(shop, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("trainable", [False, True])
def test_kill_and_go_on(shop: Path, tmp_path: Path, trainable: bool) -> None:
    more = ["--max_steps", "120", "--save_steps", "20", "--discriminator_trainable", str(trainable)]
    refine(shop, tmp_path / "whole", *more)
    command = [sys.executable, str(ROOT / "recipes" / "refine_codec.py")]
    command += refine_flags(shop, tmp_path / "killed", *more)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while not (tmp_path / "killed" / "checkpoint-40").exists() and process.poll() is None:
            time.sleep(0.002)
        process.kill()  # perhaps in the middle of writing it
    assert process.returncode == -9 and not (tmp_path / "killed" / "manifest.json").exists()
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and "going on from" in done.stdout, done.stderr[-3000:]
    assert same_weights(tmp_path / "whole", tmp_path / "killed")
    assert log(tmp_path / "whole") == log(tmp_path / "killed")


@pytest.mark.slow
def test_two_processes_share_one_discriminator(shop: Path, tmp_path: Path) -> None:
    """Its gradients are averaged by hand: after a step, each process must have the same discriminator."""
    program = tmp_path / "program.py"
    program.write_text(
        "import runpy, sys, torch\n"
        "from codec.refinement_trainer import RefinementTrainer as Trainer\n"
        "train = Trainer.train\n"
        "def spy(self, *args, **kwargs):\n"
        "    out = train(self, *args, **kwargs)\n"
        "    assert self.args.world_size == 2\n"
        "    both = [p.detach() for m in (self.model, self.critics.discriminator) for p in m.parameters()]\n"
        f"    torch.save(both, f'{tmp_path}/{{self.args.process_index}}.pt')\n"
        "    return out\n"
        "Trainer.train = spy\n"
        f"runpy.run_path({str(ROOT / 'recipes' / 'refine_codec.py')!r})['main'](sys.argv[1:])\n"
    )
    flags = refine_flags(shop, tmp_path / "out", "--discriminator_trainable", "true", "--max_steps", "3")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(program)]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*command, *flags], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    ranks = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1)]
    assert all(torch.equal(a, b) for a, b in zip(*ranks, strict=True))
    critic = load_discriminator(shop / "critic", EntangleCodec.from_pretrained(shop / "codec").model.config.mel_spec)
    assert not torch.equal(ranks[0][-1], list(critic.parameters())[-1])
