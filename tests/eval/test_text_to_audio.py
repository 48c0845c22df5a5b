"""`eval/text_to_audio.py` through its own `main()`: a tiny checkpoint with a vocoder, random instances of the real CLAP and AST."""

import json
import runpy
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import Qwen3ForCausalLM

from alm.data.example import DataError
from alm.scoring.comparison import compare
from alm.scoring.results import read_result
from alm.scoring.sound.clap import find_clap, load_clap
from alm.scoring.sound.table import render
from alm.scoring.text_to_audio.hearing import noise_like, pack, unpack
from codec.audio import read_audio, write_audio

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "eval" / "text_to_audio.py"
CAPTIONS = ["rain", "a dog barks", "a bell rings", "wind and rain", "a dog and a bell", "wind"]


@pytest.fixture(scope="module")
def main() -> Callable[[list[str]], None]:
    return runpy.run_path(str(SCRIPT))["main"]


@pytest.fixture(scope="module")
def checkpoint(speaker: Path) -> Path:
    return speaker


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Six clips in AudioCaps' form, two captions each, with their recordings beside it."""
    rows = [
        f"{10 * n + k},v{n},0,{caption}"
        for n in range(6)
        for k, caption in enumerate((CAPTIONS[n], f"{CAPTIONS[n]} rings"))
    ]
    (tmp_path / "test.csv").write_text("\n".join(["audiocap_id,youtube_id,start_time,caption", *rows]) + "\n")
    for n in range(6):
        wave = np.random.default_rng(n).normal(0, 0.1 + 0.05 * n, 8_000 + 1_600 * n)
        write_audio(tmp_path / "test" / f"Yv{n}.wav", wave, 16_000)
    return tmp_path / "test.csv"


@pytest.fixture
def sounds(tmp_path: Path) -> Path:
    """Somebody's sounds of the first captions."""
    for n in range(6):
        tone = 0.3 * np.sin(np.arange(9_600 + 960 * n) * (0.02 + 0.01 * n))
        write_audio(tmp_path / "sounds" / f"Yv{n}.wav", tone, 24_000)
    return tmp_path / "sounds"


@pytest.fixture
def flags(tiny_clap: Path, tiny_classifier: Path) -> list[str]:
    return ["--clap", str(tiny_clap), "--classifier", str(tiny_classifier), "--metrics", "none"]


def rows_of(output: Path) -> dict[str, Any]:
    lines = output.with_name(output.name.removesuffix(".json") + ".items.jsonl").read_text().splitlines()
    return {row["id"]: row for row in map(json.loads, lines)}


def test_a_systems_sounds_beside_what_shows_whether_figures_mean_anything(
    main: Callable, data: Path, sounds: Path, flags: list[str], tiny_clap: Path, tmp_path: Path, capsys: Any
) -> None:
    output = tmp_path / "s.json"
    main(["--data", str(data), "--audio", str(sounds), "--output", str(output), *flags])
    result = read_result(output)
    assert result.benchmark == "text to audio, AudioCaps, first captions" and result.system == "sounds"
    assert list(result.scores) == [
        *("clap", "fd_clap", "fd_classifier", "kl_recording_made", "kl_made_recording", "seconds")
    ]
    assert result.counts == {"items": 6, "clips": 6, "missing": 0, "recordings_missing": 0}
    assert "stop_rate" in result.unavailable

    # the figures are CLAP's own on the files: the system's, the recordings', with other captions
    clap = load_clap(find_clap(str(tiny_clap)))

    def cosine(path: Path, caption: str) -> float:
        return clap.similarity(read_audio(path, clap.sampling_rate), caption)

    rows = rows_of(output)
    for n, caption in enumerate(CAPTIONS):
        row, other = rows[f"Yv{n}"], CAPTIONS[(n + 1) % 6]
        made, recording = sounds / f"Yv{n}.wav", data.parent / "test" / f"Yv{n}.wav"
        assert row["scores"]["clap"] == pytest.approx(cosine(made, caption), abs=1e-6)
        assert row["controls"]["shuffled_captions"]["clap"] == pytest.approx(cosine(made, other), abs=1e-6)
        assert row["controls"]["ground_truth"]["clap"] == pytest.approx(cosine(recording, caption), abs=1e-6)
        assert row["controls"]["noise"]["clap"] != row["scores"]["clap"]
    mean = np.mean([row["scores"]["clap"] for row in rows.values()])
    assert result.scores["clap"].value == pytest.approx(mean) and result.scores["clap"].n == 6
    controls = {"ground_truth", "shuffled_captions", "noise", "silence"}
    assert {f"{name}_clap" for name in controls} | {"noise_fd_clap", "silence_kl_recording_made"} <= set(
        result.controls
    )
    table = capsys.readouterr().out
    assert "controls" in table and "shuffled_captions_clap" in table and render(result) in table


def test_recordings_given_as_the_system_are_as_good_as_the_recordings(
    main: Callable, data: Path, flags: list[str], tmp_path: Path
) -> None:
    output = tmp_path / "truth.json"
    main(["--data", str(data), "--audio", str(data.with_suffix("")), "--output", str(output), *flags])
    result = read_result(output)
    assert result.scores["clap"] == result.controls["ground_truth_clap"]
    for name in ("fd_clap", "fd_classifier", "kl_recording_made", "kl_made_recording"):
        assert result.scores[name].value == pytest.approx(0, abs=1e-6)
    assert result.controls["noise_kl_recording_made"].value > 0


def test_what_is_missing_is_an_error_or_silence(
    main: Callable, data: Path, sounds: Path, flags: list[str], tmp_path: Path, capsys: Any
) -> None:
    output = tmp_path / "m.json"
    command = ["--data", str(data), "--audio", str(sounds), "--output", str(output), *flags]
    (sounds / "Yv3.wav").unlink()
    (sounds / "Yv4.wav").write_text("no audio")
    (data.with_suffix("") / "Yv0.wav").unlink()
    with pytest.raises(DataError, match=r"1 of 6 sounds are missing.*Yv3"):
        main(command)
    with pytest.raises(DataError, match=r"2 of 6 sounds.*--max_missing"):
        main([*command, "--max_missing", "0.2"])
    main([*command, "--max_missing", "0.5"])
    result, rows = read_result(output), rows_of(output)
    assert (result.counts["missing"], result.counts["recordings_missing"]) == (2, 1)
    assert result.scores["clap"].n == 6 and result.scores["seconds"].n == 4 and result.controls["noise_clap"].n == 4
    assert result.scores["kl_recording_made"].n == 5
    for name in ("Yv3", "Yv4"):
        silent = rows[name]["controls"]["silence"]
        assert rows[name]["missing"] and rows[name]["scores"] == silent
    assert "Yv4" in (told := capsys.readouterr().err) and "Yv0" in told
    shutil.rmtree(sounds)
    with pytest.raises(DataError, match="no such folder"):
        main(command)
    sounds.mkdir()
    with pytest.raises(DataError, match=r"Yv0\.wav is the first expected"):
        main(command)


def test_all_captions_are_resampled_by_clip(main: Callable, data: Path, flags: list[str], tmp_path: Path) -> None:
    (tmp_path / "all").mkdir()
    for n in range(6):
        for k in range(2):
            shutil.copy(data.with_suffix("") / f"Yv{n}.wav", tmp_path / "all" / f"{10 * n + k}.wav")
    output = tmp_path / "all.json"
    main(["--data", str(data), "--captions", "all", "--audio", str(tmp_path / "all"), "--output", str(output), *flags])
    result, rows = read_result(output), rows_of(output)
    assert result.benchmark.endswith("all captions") and result.counts["items"] == 12 and result.counts["clips"] == 6
    assert result.scores["clap"].n == 6
    assert result.scores["clap"].value == pytest.approx(np.mean([row["scores"]["clap"] for row in rows.values()]))
    with pytest.raises(DataError, match="holds no sound"):  # a sound a clip is not enough
        main(
            [
                *("--data", str(data), "--captions", "all", "--audio", str(data.with_suffix(""))),
                *("--output", str(output), *flags),
            ]
        )


def test_absent_models_are_null_with_a_cure(main: Callable, data: Path, sounds: Path, tmp_path: Path) -> None:
    shutil.rmtree(data.with_suffix(""))
    output = tmp_path / "n.json"
    command = ["--data", str(data), "--audio", str(sounds), "--output", str(output)]
    absent = ["--clap", "nobody/clap", "--classifier", "nobody/ast"]
    main([*command, *absent])
    result = read_result(output)
    assert list(result.scores) == ["seconds"]
    assert (
        "hf download nobody/clap" in result.unavailable["clap"] and "nobody/ast" in result.unavailable["fd_classifier"]
    )
    assert "hf download facebook/audiobox-aesthetics" in result.unavailable["audiobox_ce"]
    for name in ("clap", "classifier", "audiobox"):
        with pytest.raises(DataError, match=f"--require {name}"):
            main([*command, *absent, "--require", name])
    with pytest.raises(DataError, match="compares with the same sound"):
        main([*command, *absent, "--metrics", "stoi"])
    with pytest.raises(DataError, match="holds no recording"):
        main([*command, *absent, "--recordings", str(sounds.parent / "nowhere")])


def test_without_recordings_there_is_nothing_to_compare_with(
    main: Callable, data: Path, sounds: Path, flags: list[str], tmp_path: Path
) -> None:
    shutil.rmtree(data.with_suffix(""))
    output = tmp_path / "n.json"
    main(["--data", str(data), "--audio", str(sounds), "--output", str(output), *flags, "--no_controls"])
    result = read_result(output)
    assert list(result.scores) == ["clap", "seconds"] and not result.controls
    assert "--recordings FOLDER" in result.unavailable["fd_clap"]


def test_a_checkpoint_makes_the_sounds(
    main: Callable, checkpoint: Path, data: Path, flags: list[str], tmp_path: Path, capsys: Any
) -> None:
    def run(name: str, *more: str) -> Path:
        output = tmp_path / name / "r.json"
        main(
            [
                *("--data", str(data), "--model", str(checkpoint), "--output", str(output), "--max_seconds", "0.4"),
                *("--limit", "3", *flags, *more),
            ]
        )
        return output

    whole = run("whole", "--batch_size", "2")
    result = read_result(whole)
    assert {
        "weights",
        "vocabulary",
        "tokenizer",
        "codec",
        "codec_weights",
        "prompt_id",
        "decoding",
    } <= result.manifest.keys()
    assert result.counts["forced_ends"] == round(3 * (1 - result.scores["stop_rate"].value))
    files = sorted((tmp_path / "whole" / "r.audio").iterdir())
    assert [path.name for path in files] == ["Yv0.wav", "Yv1.wav", "Yv2.wav"]
    # neither batches nor the number of captions decide a sound; seed and guidance do
    alone = run("alone", "--batch_size", "1", "--limit", "2")
    for path in files[:2]:
        same = read_audio(alone.parent / "r.audio" / path.name, 24_000)
        assert np.allclose(same, read_audio(path, 24_000), atol=2 / 32_768)  # rounding of a batch's decoding
    for more in (["--seed", "1"], ["--guidance_scale", "3"], ["--temperature", "0"]):
        other = run("other", *more)
        assert any((other.parent / "r.audio" / path.name).read_bytes() != path.read_bytes() for path in files)
    # silence does not depend on any of it
    assert {name: one for name, one in read_result(other).controls.items() if name.startswith("silence")} == {
        name: one for name, one in result.controls.items() if name.startswith("silence")
    }
    found = compare(whole, other)
    assert found.differences["clap"].n == 3 and found.unpaired == 0
    # the sounds are a folder that scores the same
    again = tmp_path / "again.json"
    main(
        ["--data", str(data), "--limit", "3", "--audio", str(whole.parent / "r.audio"), "--output", str(again), *flags]
    )
    assert read_result(again).scores["clap"] == result.scores["clap"]
    assert read_result(again).controls == result.controls

    # what is there is taken over, and nothing is loaded to hear it
    capsys.readouterr()
    before = [(path.stat().st_mtime_ns, path.name) for path in files]
    run("whole", "--batch_size", "2", "--resume")
    assert "3 sounds there, 0 of another run" in capsys.readouterr().err
    assert [(path.stat().st_mtime_ns, path.name) for path in files] == before
    # a sound that was changed is made anew
    kept = files[1].read_bytes()
    files[1].write_bytes(files[0].read_bytes())
    run("whole", "--batch_size", "2", "--resume")
    assert files[1].read_bytes() == kept != files[0].read_bytes()


def test_other_weights_take_nothing_over(
    main: Callable, checkpoint: Path, data: Path, flags: list[str], tmp_path: Path, capsys: Any
) -> None:
    shutil.copytree(checkpoint, tmp_path / "model")
    command = ["--data", str(data), "--model", str(tmp_path / "model"), "--output", str(tmp_path / "w" / "r.json")]
    command += ["--max_seconds", "0.4", "--limit", "2", "--no_controls", *flags, "--resume"]
    main(command)
    model = Qwen3ForCausalLM.from_pretrained(tmp_path / "model")
    with torch.no_grad():
        model.model.norm.weight.mul_(1.5)
    model.save_pretrained(tmp_path / "model")
    capsys.readouterr()
    main(command)
    assert "0 sounds there, 2 of another run left aside" in capsys.readouterr().err


def test_dry_run_and_wrong_flags(main: Callable, data: Path, flags: list[str], tmp_path: Path, capsys: Any) -> None:
    main(["--data", str(data), "--model", "nowhere", "--output", str(tmp_path / "x.json"), *flags, "--dry_run"])
    told = capsys.readouterr().out
    assert "6 captions" in told and "6 recordings" in told and "sha256" in told
    assert not (tmp_path / "x.json").exists()
    for wrong in (
        [],
        ["--model", "x", "--audio", "y"],
        ["--model", "x", "--captions", "two"],
        ["--model", "x", "--max_missing", "2"],
        ["--model", "x", "--limit", "0"],
        ["--model", "x", "--checkpoints", "audiobox"],
    ):
        with pytest.raises(SystemExit):
            main(["--data", str(data), *wrong])


def test_noise_is_as_long_and_as_loud_and_the_same_each_time() -> None:
    wave = np.random.default_rng(0).uniform(-0.3, 0.7, 5_000).astype(np.float32)
    noise = noise_like("a", wave)
    assert len(noise) == len(wave) and np.square(noise).mean() == pytest.approx(np.square(wave).mean(), rel=1e-5)
    assert np.array_equal(noise, noise_like("a", wave)) and not np.array_equal(noise, noise_like("b", wave))
    assert not noise_like("a", 0 * wave).any()
    assert np.array_equal(unpack(pack(wave)), wave)


@pytest.mark.slow
def test_killed_at_any_time_a_run_resumes_to_the_identical_files(
    main: Callable,
    checkpoint: Path,
    data: Path,
    flags: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kill_when: Any,
) -> None:
    given = ["--data", str(data), "--model", str(checkpoint), "--output", "r.json", "--max_seconds", "1"]
    given += ["--batch_size", "1", "--limit", "4", "--resume", *flags]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for folder in (whole, killed):
        folder.mkdir()
    monkeypatch.chdir(whole)
    main(given)
    monkeypatch.chdir(killed)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    for log, rows in (("r.outputs.jsonl", 2), ("r.sounds.jsonl", 4)):
        kill_when(SCRIPT, given, killed / log, rows)
        assert not (killed / "r.json").exists()
    main(given)
    for name in ("r.json", "r.items.jsonl", *(f"r.audio/Yv{n}.wav" for n in range(4))):
        assert (killed / name).read_bytes() == (whole / name).read_bytes(), name
