"""`eval/reconstruction.py` through its own `main()`, and its measures."""

import json
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from alm.data.example import DataError
from alm.scoring.reconstruction import log_mel_error, stoi
from alm.scoring.results import read_result
from alm.scoring.sound.base import Found
from alm.scoring.sound.codes import unpack
from alm.scoring.sound.table import render
from alm.scoring.speech.recognition import Recogniser
from codec import EntangleCodec, EntangleCodecConfig, EntangleCodecModel
from codec.audio import write_audio
from codec.mel import MelSpec

ROOT = Path(__file__).parents[2]
SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
SPEC = MelSpec(mean=-6.0, std=3.0)


def speech_like(seconds: float) -> Any:
    """Noise in syllables."""
    time = np.arange(int(24_000 * seconds)) / 24_000
    return (0.2 * np.random.default_rng(0).standard_normal(len(time)) * (np.sin(2 * np.pi * 4 * time) > 0)).astype(
        np.float32
    )


@pytest.fixture
def codec(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    small = {f"{part}{name}": value for part in ("", "decoder_", "text_") for name, value in SMALL.items()}
    vocoder = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    config = EntangleCodecConfig(**small, codebook_size=32, conditioning="add", mel=dict(vars(SPEC)), vocoder=vocoder)
    EntangleCodec(EntangleCodecModel(config)).save_pretrained(tmp_path / "codec")
    return tmp_path / "codec"


def test_a_perfect_copy_and_a_bad_one() -> None:
    wave = speech_like(2)
    assert log_mel_error(wave, wave, SPEC) == 0
    assert log_mel_error(wave, 0.5 * wave, SPEC) == pytest.approx(
        2 * np.log(2) / 3, rel=0.4
    )  # silent frames stay at the floor
    assert stoi(wave, wave, 24_000) == pytest.approx(1, abs=1e-6)
    noise = np.random.default_rng(1).standard_normal(len(wave)).astype(np.float32)
    assert stoi(wave, wave + noise, 24_000) < 0.7
    assert np.isnan(stoi(wave[:4_000], wave[:4_000], 24_000))  # too short to be defined
    click = np.zeros(24_000, np.float32)
    click[12_000:12_100] = 0.5
    assert np.isnan(stoi(click, click, 24_000))  # one loud frame
    assert np.isnan(stoi(wave[:500], wave[:500], 24_000))
    with pytest.raises(ValueError, match="fewer"):
        log_mel_error(wave, wave[:-1], SPEC)


def test_the_script(codec: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for folder in ("speech", "sounds"):
        (tmp_path / folder).mkdir()
        for n in range(2):
            write_audio(tmp_path / folder / f"{n}.wav", speech_like(0.8 + n / 4), 24_000)
    main = runpy.run_path(str(ROOT / "eval" / "reconstruction.py"))["main"]
    output, picture = tmp_path / "result.json", tmp_path / "mel.png"
    flags = ["--codec", str(codec), "--audio", f"{tmp_path}/speech", f"{tmp_path}/sounds", "--output", str(output)]
    flags += ["--metrics", "log_mel_l1", "stoi"]  # the others would run, too, where their packages are installed
    main([*flags, "--picture", str(picture), "--save_audio", str(tmp_path / "made")])
    result = json.loads(output.read_text())
    assert set(result["groups"]["folder"]) == {"speech", "sounds"}
    assert result["scores"]["codebook_use"]["n"] == sum(-(-int(24_000 * s) // 480) for s in (0.8, 1.05)) * 2
    assert 0 < result["scores"]["perplexity_share"]["value"] <= result["scores"]["codebook_use"]["value"] <= 1
    assert result["scores"]["log_mel_l1"]["n"] == 4
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert len(list((tmp_path / "made").rglob("*.wav"))) == 4
    assert "log_mel_l1" in capsys.readouterr().out
    (tmp_path / "speech" / "broken.wav").write_text("no audio")
    with pytest.raises(DataError, match=r"1 of 5 files cannot be read.*broken\.wav"):
        main(flags)


@pytest.fixture
def main() -> Callable[[list[str]], None]:
    return runpy.run_path(str(ROOT / "eval" / "reconstruction.py"))["main"]


@pytest.fixture
def audio(tmp_path: Path) -> Path:
    """Two folders of two clips of a second, at two rates."""
    for folder, rate in (("speech", 24_000), ("sounds", 16_000)):
        for n in range(2):
            write_audio(
                tmp_path / "audio" / folder / f"{n}.wav", speech_like(1 + n / 2)[: int(rate * (1 + n / 2))], rate
            )
    return tmp_path / "audio"


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch, make_toy_codec: Any) -> Any:
    """A codec of two codebooks in the zoo's place; remembers what it was loaded with."""
    codec = make_toy_codec(num_codebooks=2)
    codec.options = []
    monkeypatch.setattr("codec.zoo.load_codec", lambda *args, **options: codec.options.append((args, options)) or codec)
    return codec


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.with_name(path.stem + ".items.jsonl").read_text().splitlines()]


def test_any_codec_of_the_contract(main: Callable, toy: Any, audio: Path, tmp_path: Path, capsys: Any) -> None:
    output = tmp_path / "r.json"
    sources = [f"{audio}/speech", f"{audio}/sounds"]
    main(
        [
            "--codec",
            "toy",
            "--num_codebooks",
            "2",
            "--codec_options",
            "revision=abc",
            "--audio",
            *sources,
            "--output",
            str(output),
            "--metrics",
            "log_mel_l1",
            "pesq",
        ]
    )
    assert toy.options == [(("toy", "cpu"), {"revision": "abc", "num_codebooks": 2})]
    result, rows = read(output), rows_of(output)
    assert list(result["groups"]["codebook"]) == ["0", "1"] and len(result["manifest"]["codebook"]) == 2
    both = [result["groups"]["codebook"][k]["codebook_use"]["value"] for k in "01"]
    assert result["scores"]["codebook_use"]["value"] == pytest.approx(sum(both) / 2)
    assert [row["id"] for row in rows] == ["speech/0", "speech/1", "sounds/0", "sounds/1"]
    assert sum(unpack(row["codes"]).shape[1] for row in rows) == result["scores"]["codebook_use"]["n"] == 250
    mean = sum(row["scores"]["log_mel_l1"] for row in rows) / 4
    score = result["scores"]["log_mel_l1"]
    assert score["value"] == pytest.approx(mean) and score["low"] <= mean <= score["high"] and score["n"] == 4
    assert "pesq" in result["unavailable"] or "pesq" in result["scores"]
    assert result["manifest"]["metrics"]["log_mel_l1"].startswith("mel ")
    told = capsys.readouterr().out
    assert read_result(output).system == "toy" and render(read_result(output)) in told
    assert "by codebook" in told and "nats of power" in told


def test_a_missing_package_is_null_with_its_reason(
    main: Callable, toy: Any, audio: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    import importlib.util

    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *_: None if name == "pystoi" else real(name))
    flags = ["--codec", "toy", "--audio", f"{audio}/speech", "--output", str(tmp_path / "r.json")]
    main([*flags, "--metrics", "stoi", "log_mel_l1"])
    result = read(tmp_path / "r.json")
    assert "stoi" not in result["scores"] and "pip install 'pystoi" in result["unavailable"]["stoi"]
    with pytest.raises(DataError, match=r"--require stoi.*pip install"):
        main([*flags, "--require", "stoi"])


def test_words_are_counted_beside_the_originals(
    main: Callable, toy: Any, audio: Path, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    """A recogniser that hears "hello there" in the originals and "hello" in reconstructions; only clips with a text are heard."""
    pytest.importorskip("jiwer")
    heard: list[str] = []

    def recogniser(found: Found, device: str) -> Recogniser:
        return Recogniser(found.label, lambda wave: heard.append("") or ("hello" if len(heard) % 2 else "hello there"))

    monkeypatch.setattr("alm.scoring.speech.words.find_recogniser", lambda name: Found(f"{name}@1"))
    monkeypatch.setattr("alm.scoring.speech.words.load_recogniser", recogniser)
    table, output = tmp_path / "said.csv", tmp_path / "r.json"
    table.write_text("file_name,text\n0.wav,Hello there.\n")
    flags = ["--codec", "toy", "--audio", f"{audio}/speech", "--metrics", "log_mel_l1", "--output", str(output)]
    main([*flags, "--transcripts", str(table), "--asr", "small"])
    result, rows = read_result(output), rows_of(output)
    assert result.scores["wer_corpus"].value == 0.5 and result.controls["wer_corpus"].value == 0
    assert result.scores["wer_macro"].n == 1 and result.manifest["metrics"]["wer"].startswith("small@1, ")
    assert rows[0]["words"]["made"] == {"heard": "hello", "errors": 1, "words": 2} and "words" not in rows[1]
    assert "errors per word" in capsys.readouterr().out
    main([*flags, "--transcripts", str(table), "--asr", "small", "--resume", "true"])
    assert len(heard) == 2 and read_result(output).scores == result.scores
    main(flags)
    assert "--transcripts FILE.csv" in read_result(output).unavailable["wer_corpus"]


def test_stored_reconstructions(main: Callable, toy: Any, audio: Path, tmp_path: Path, capsys: Any) -> None:
    sources = [f"{audio}/speech", f"{audio}/sounds"]
    made, first, second = tmp_path / "made", tmp_path / "a.json", tmp_path / "b.json"
    metrics = ["--metrics", "log_mel_l1", "stoi"]
    main(["--codec", "toy", "--audio", *sources, "--output", str(first), "--save_audio", str(made), *metrics])
    main(["--reconstructions", str(made), "--audio", *sources, "--output", str(second), *metrics])
    codec, stored = read(first), read(second)
    for name in ("log_mel_l1", "stoi"):  # 16 bits are all that was lost on the way through the files
        assert stored["scores"][name]["value"] == pytest.approx(codec["scores"][name]["value"], abs=0.05)
    assert "no codes" in stored["unavailable"]["codebook_use"] and stored["system"] == "made"
    (made / "speech" / "0.wav").unlink()
    with pytest.raises(DataError, match=r"lacks 1 of 4 reconstructions \(first: speech/0"):
        main(["--reconstructions", str(made), "--audio", *sources, "--output", str(second), *metrics])
    main(["--reconstructions", str(made), "--audio", *sources, "--output", str(second), "--allow_missing", *metrics])
    assert read(second)["counts"]["missing_reconstructions"] == 1 and read(second)["counts"]["items"] == 4
    assert read(second)["scores"]["log_mel_l1"]["n"] == 3
    assert "speech/0: no reconstruction" in capsys.readouterr().err


def test_originals_against_themselves_are_perfect(main: Callable, audio: Path, tmp_path: Path) -> None:
    flags = ["--reconstructions", f"{audio}/speech", "--audio", f"{audio}/speech", "--output", str(tmp_path / "r.json")]
    main([*flags, "--metrics", "log_mel_l1", "stoi"])
    scores = read(tmp_path / "r.json")["scores"]
    assert scores["log_mel_l1"]["value"] == 0 and scores["stoi"]["value"] == pytest.approx(1, abs=1e-6)


def test_lengths_are_cut_and_counted(main: Callable, audio: Path, tmp_path: Path) -> None:
    for n, samples in ((0, 12_000), (1, 48_000)):
        write_audio(tmp_path / "made" / f"{n}.wav", speech_like(2)[:samples], 24_000)
    flags = [
        "--reconstructions",
        f"{tmp_path}/made",
        "--audio",
        f"{audio}/speech",
        "--output",
        str(tmp_path / "r.json"),
    ]
    main([*flags, "--metrics", "log_mel_l1"])
    result, rows = read(tmp_path / "r.json"), rows_of(tmp_path / "r.json")
    assert (result["counts"]["original_cut"], result["counts"]["reconstruction_cut"]) == (1, 1)
    assert [(row["seconds"], row["made_seconds"]) for row in rows] == [(1.0, 0.5), (1.5, 2.0)]
    assert "shorter" in result["manifest"]["lengths"]


def test_length_sweep(main: Callable, toy: Any, audio: Path, tmp_path: Path) -> None:
    flags = ["--codec", "toy", "--audio", f"{audio}/speech", f"{audio}/sounds", "--metrics", "log_mel_l1"]
    main([*flags, "--output", str(tmp_path / "r.json"), "--length_sweep", "0.5", "2"])
    result = read(tmp_path / "r.json")
    assert {name: scores["log_mel_l1"]["n"] for name, scores in result["groups"]["seconds"].items()} == {
        "0.5": 10,
        "2": 2,
    }
    assert result["scores"]["log_mel_l1"]["n"] == 4  # the sweep is apart
    with pytest.raises(DataError, match=r"last 5\.0 s"):
        main([*flags, "--output", str(tmp_path / "r.json"), "--length_sweep", "60"])


def test_resume_goes_on_and_gives_the_same(main: Callable, toy: Any, audio: Path, tmp_path: Path, capsys: Any) -> None:
    output = tmp_path / "r.json"
    items = tmp_path / "r.items.jsonl"
    flags = [
        "--codec",
        "toy",
        "--audio",
        f"{audio}/speech",
        f"{audio}/sounds",
        "--metrics",
        "log_mel_l1",
        "--output",
        str(output),
    ]
    main(flags)
    whole, calls = read(output), len(toy.calls)
    lines = items.read_text().splitlines(keepends=True)
    items.write_text("".join(lines[:2]) + lines[2][:20])  # a kill tore the third
    main([*flags, "--resume"])
    assert len(toy.calls) == calls + 2 and "2 rows taken over" in capsys.readouterr().err
    for name in ("scores", "groups", "counts"):
        assert read(output)[name] == whole[name]
    write_audio(audio / "speech" / "0.wav", 0.5 * speech_like(1), 24_000)  # another recording under the old name
    main([*flags, "--resume"])
    assert len(toy.calls) == calls + 3
    toy.fingerprint = "another"
    main([*flags, "--resume"])
    assert len(toy.calls) == calls + 7


def test_what_the_codec_refuses_is_counted(main: Callable, toy: Any, audio: Path, tmp_path: Path, capsys: Any) -> None:
    encode = toy.encode

    def picky(waveforms: Any) -> Any:
        if len(waveforms[0]) > 30_000:
            raise ValueError("too long")
        return encode(waveforms)

    toy.encode = picky
    flags = [
        "--codec",
        "toy",
        "--audio",
        f"{audio}/speech",
        "--metrics",
        "log_mel_l1",
        "--output",
        str(tmp_path / "r.json"),
    ]
    with pytest.raises(DataError, match=r"1 of 2 files cannot be read.*speech/1: refused by the codec: too long"):
        main(flags)
    main([*flags, "--max_missing", "0.5"])
    assert read(tmp_path / "r.json")["counts"]["missing"] == 1
    assert "not measured: speech/1" in capsys.readouterr().err


def test_a_data_set(main: Callable, toy: Any, audio: Path, tmp_path: Path) -> None:
    import datasets

    (tmp_path / "set").mkdir()
    data = [{"bytes": path.read_bytes(), "path": path.name} for path in sorted(audio.rglob("*.wav"))]
    data.append({"bytes": b"no audio", "path": "x.wav"})
    datasets.Dataset.from_dict({"audio": data}).to_parquet(tmp_path / "set" / "test.parquet")
    flags = [
        "--codec",
        "toy",
        "--dataset",
        f"{tmp_path}/set",
        "--metrics",
        "log_mel_l1",
        "--output",
        str(tmp_path / "r.json"),
    ]
    main([*flags, "--max_missing", "0.2", "--picture", str(tmp_path / "mel.png"), "--picture_clips", "5"])
    result = read(tmp_path / "r.json")
    assert result["counts"]["items"] == 5 and result["counts"]["missing"] == 1
    assert (tmp_path / "mel.png").is_file() and "set/000004" in result["manifest"]["problems"][0]
    with pytest.raises(DataError, match="1 of 5 files"):
        main(flags)


def test_dry_run_and_mistakes(main: Callable, audio: Path, tmp_path: Path, capsys: Any) -> None:
    output = tmp_path / "r.json"
    main(["--codec", "none", "--audio", f"{audio}/speech", "--output", str(output), "--dry_run"])
    told = capsys.readouterr().out
    assert "2 files of speech" in told and "not available" in told and not output.exists()
    for flags, message in (
        (["--audio", "x"], "either --codec"),
        (["--codec", "x"], "either --audio"),
        (["--reconstructions", "x", "--audio", "x", "--length_sweep", "5"], "--length_sweep needs --codec"),
        (["--codec", "x", "--audio", "x", "--checkpoints", "sim"], "METRIC=PATH"),
    ):
        with pytest.raises(SystemExit):
            main(flags)
        assert message in capsys.readouterr().err


def test_griffin_lim_is_entangle_codecs_alone(
    main: Callable, codec: Path, audio: Path, tmp_path: Path, toy: Any
) -> None:
    flags = ["--codec", "toy", "--audio", f"{audio}/speech", "--output", str(tmp_path / "r.json"), "--griffin_lim"]
    with pytest.raises(ValueError, match="for an EntangleCodec"):
        main(flags)
