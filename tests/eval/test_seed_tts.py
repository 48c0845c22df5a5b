"""`eval/seed_tts.py` through its own `main()`: stored transcripts, any system's files, a tiny checkpoint that speaks."""

import json
import runpy
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    Qwen3ForCausalLM,
    Wav2Vec2FeatureExtractor,
    WavLMConfig,
    WavLMForXVector,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
)

from alm.data.example import DataError
from alm.scoring.comparison import compare
from alm.tokenizer import train_tokenizer
from codec.audio import write_audio

pytest.importorskip("jiwer")
pytest.importorskip("whisper_normalizer")
ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "eval" / "seed_tts.py"
TEXTS = {"u1": "Good morning.", "u2": "Twenty-one cats.", "u3": "Yes.", "u4": "It rains again."}
HEARD = {"u1": "good morning", "u2": "twenty one cats", "u3": "yes yes yes", "u4": "it rains"}
MACRO = (0 + 2 / 2 + 2 / 1 + 1 / 3) / 4
"""By hand: "twentyone cats" against three words is one substitution and one insertion."""


@pytest.fixture(scope="module")
def main() -> Callable[[list[str]], None]:
    return runpy.run_path(str(SCRIPT))["main"]


@pytest.fixture
def meta(tmp_path: Path) -> Path:
    path = tmp_path / "meta.lst"
    path.write_text("".join(f"{name}|||{text}\n" for name, text in TEXTS.items()))
    return path


@pytest.fixture
def wavs(tmp_path: Path) -> Path:
    folder = tmp_path / "wavs"
    folder.mkdir()
    for number, name in enumerate(TEXTS):
        noise = np.random.default_rng(number).normal(0, 0.1, 4_000 + 800 * number).astype(np.float32)
        write_audio(folder / f"{name}.wav", noise, 16_000)
    return folder


@pytest.fixture(scope="module")
def whisper(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real class, random weights, an own tokenizer of few words."""
    folder = tmp_path_factory.mktemp("whisper")
    torch.manual_seed(0)
    tokenizer = train_tokenizer(list(TEXTS.values()) * 8, 320)
    config = WhisperConfig(
        vocab_size=len(tokenizer),
        d_model=16,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
        max_target_positions=12,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
        decoder_start_token_id=1,
        suppress_tokens=None,
        begin_suppress_tokens=None,
    )
    model = WhisperForConditionalGeneration(config)
    model.generation_config.max_length = 12
    model.save_pretrained(folder)
    WhisperFeatureExtractor(feature_size=80).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def x_vectors(tmp_path: Path) -> Path:
    """The real class, random weights that tell clips apart."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    features = {"conv_dim": [8] * 7, "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2}
    model = WavLMForXVector(WavLMConfig(**sizes, **features, tdnn_dim=[8] * 5, xvector_output_dim=8))
    for part in (model.projector, model.tdnn, model.feature_extractor):
        for weight in part.parameters():
            torch.nn.init.normal_(weight, std=0.5 if weight.ndim > 1 else 0.0)
    model.save_pretrained(tmp_path / "x_vectors")
    Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(tmp_path / "x_vectors")
    return tmp_path / "x_vectors"


def rows_of(path: Path) -> dict[str, dict[str, Any]]:
    """Rows by id; each id has one."""
    rows = [json.loads(line) for line in path.with_suffix(".items.jsonl").read_text().splitlines()]
    assert len({row["id"] for row in rows}) == len(rows)
    return {row["id"]: row for row in rows}


def result(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


def arguments(meta: Path, output: Path, *more: str) -> list[str]:
    return ["--meta", str(meta), "--language", "en", "--output", str(output), "--metrics", "utmos", *more]


def test_stored_transcripts(main: Any, meta: Path, tmp_path: Path) -> None:
    (tmp_path / "heard.json").write_text(json.dumps({f"{name}.wav": text for name, text in HEARD.items()}))
    main(arguments(meta, tmp_path / "a.json", "--transcripts", str(tmp_path / "heard.json")))
    scores = result(tmp_path / "a.json")["scores"]
    assert scores["wer_macro"]["value"] == pytest.approx(MACRO)
    assert scores["wer_pooled"]["value"] == pytest.approx((0 + 2 + 2 + 1) / (2 + 2 + 1 + 3))
    # Whisper's normal form writes both as 21
    assert scores["wer_corpus"]["value"] < scores["wer_pooled"]["value"]
    assert {"utmos", "stop_rate"} <= result(tmp_path / "a.json")["unavailable"].keys()
    (tmp_path / "better.json").write_text(json.dumps(TEXTS))
    main(arguments(meta, tmp_path / "b.json", "--transcripts", str(tmp_path / "better.json")))
    assert result(tmp_path / "b.json")["scores"]["wer_macro"]["value"] == 0
    assert compare(tmp_path / "a.json", tmp_path / "b.json").differences["wer_macro"].value == pytest.approx(-MACRO)


def test_what_is_missing_is_an_error_or_counted(main: Any, meta: Path, tmp_path: Path) -> None:
    (tmp_path / "heard.json").write_text(json.dumps({"u1": "good morning"}))
    more = ("--transcripts", str(tmp_path / "heard.json"))
    with pytest.raises(DataError, match=r"lacks 3 of 4 utterances \(first: u2\)"):
        main(arguments(meta, tmp_path / "a.json", *more))
    main(arguments(meta, tmp_path / "a.json", *more, "--allow_missing"))
    made = result(tmp_path / "a.json")
    # as if nothing had been heard, where the official script would leave them out and give 0
    assert made["scores"]["wer_macro"]["value"] == pytest.approx(3 / 4) and made["counts"]["missing"] == 3


def test_a_recogniser_hears_any_systems_files(main: Any, meta: Path, wavs: Path, whisper: Path, tmp_path: Path) -> None:
    more = ("--audio", str(wavs), "--asr", str(whisper))
    main(arguments(meta, tmp_path / "a.json", *more))
    made = result(tmp_path / "a.json")
    rows = [json.loads(line) for line in (tmp_path / "a.items.jsonl").read_text().splitlines()]
    assert [row["said"] for row in rows if "said" in row] == list(TEXTS.values())
    assert made["scores"]["seconds"]["value"] == pytest.approx(np.mean([4_000 + 800 * n for n in range(4)]) / 16_000)
    # its transcripts, stored, give the same figures
    (tmp_path / "heard.json").write_text(json.dumps({row["id"]: row["heard"] for row in rows if "heard" in row}))
    main(arguments(meta, tmp_path / "b.json", "--transcripts", str(tmp_path / "heard.json")))
    for name in ("wer_macro", "wer_pooled", "wer_corpus"):
        assert made["scores"][name]["value"] == result(tmp_path / "b.json")["scores"][name]["value"]


def test_a_checkpoint_speaks(
    main: Any, speaker: Path, meta: Path, whisper: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(name: str, *more: str) -> Path:
        (tmp_path / name).mkdir(exist_ok=True)
        output = tmp_path / name / "r.json"
        main(arguments(meta, output, "--model", str(speaker), "--max_seconds", "0.4", "--asr", str(whisper), *more))
        return output

    whole = run("whole", "--batch_size", "4")
    made = result(whole)
    assert {"wer_macro", "wer_pooled", "wer_corpus", "seconds", "stop_rate"} == made["scores"].keys()
    assert made["scores"]["stop_rate"]["n"] == 4 and 0.2 <= made["scores"]["seconds"]["value"] <= 0.4
    decided_by = {"weights", "vocabulary", "tokenizer", "codec", "codec_weights", "prompt_id", "decoding", "seed"}
    assert decided_by <= made["manifest"].keys() and made["manifest"]["metrics"]["asr"].startswith(whisper.name)
    alone = run("alone", "--batch_size", "1", "--limit", "2")
    assert {row["id"]: row["heard"] for row in rows_of(alone).values()}.items() <= {
        name: row["heard"] for name, row in rows_of(whole).items()
    }.items()
    # the sounds are a folder that scores the same, but for who ended them
    stored = tmp_path / "stored.json"
    main(arguments(meta, stored, "--audio", str(tmp_path / "whole" / "r.audio"), "--asr", str(whisper)))
    assert result(stored)["scores"] == {k: v for k, v in made["scores"].items() if k != "stop_rate"}
    assert "--model" in result(stored)["unavailable"]["stop_rate"]

    # another recogniser takes the sounds over; other weights take nothing
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "whole" / "r.audio").iterdir()}
    shutil.copytree(whisper, tmp_path / "other_asr")
    other = WhisperForConditionalGeneration.from_pretrained(whisper)
    with torch.no_grad():
        other.model.decoder.layer_norm.weight.mul_(-1)
    other.save_pretrained(tmp_path / "other_asr")
    capsys.readouterr()
    run("whole", "--batch_size", "4", "--resume", "--asr", str(tmp_path / "other_asr"))
    assert "4 sounds there, 0 of another run" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in files} == files
    assert {row["heard"] for row in rows_of(whole).values()} != {row["heard"] for row in rows_of(stored).values()}
    shutil.copytree(speaker, tmp_path / "model")
    model = Qwen3ForCausalLM.from_pretrained(tmp_path / "model")
    with torch.no_grad():
        model.model.norm.weight.mul_(1.5)
    model.save_pretrained(tmp_path / "model")
    run("whole", "--resume", "--model", str(tmp_path / "model"))
    assert "0 sounds there, 4 of another run left aside" in capsys.readouterr().err


def test_a_text_after_its_prompt(main: Any, speaker: Path, meta: Path, wavs: Path, x_vectors: Path) -> None:
    model = ("--model", str(speaker), "--max_seconds", "0.6", "--min_seconds", "0.6", "--metrics", "sim_xvector")
    model += ("--checkpoints", f"sim_xvector={x_vectors}")
    output = meta.with_name("r.json")
    main(arguments(meta, output, *model))
    assert "--zero_shot" in result(output)["unavailable"]["sim_xvector"]
    with pytest.raises(DataError, match="--require sim_xvector"):
        main(arguments(meta, output, *model, "--require", "sim_xvector"))
    with pytest.raises(DataError, match="u1: the list gives no prompt with its text"):
        main(arguments(meta, output, *model, "--zero_shot"))
    before = (meta.with_name("r.audio") / "u2.wav").read_bytes()
    for name in ("p1", "p2"):  # half a second is the least that has a speaker
        noise = np.random.default_rng(len(name)).normal(0, 0.1, 12_000).astype(np.float32)
        write_audio(wavs / f"{name}.wav", noise, 16_000)
    meta.write_text("u1|dog|wavs/p1.wav|a bell\nu2|cat|wavs/p2.wav|Twenty-one cats.\n")
    main(arguments(meta, output, *model, "--zero_shot"))
    made = result(output)
    assert -1 <= made["scores"]["sim_xvector"]["value"] <= 1 and made["scores"]["sim_xvector"]["n"] == 2
    assert "after the same of the prompt" in made["manifest"]["prompt_id"]
    assert (meta.with_name("r.audio") / "u2.wav").read_bytes() != before


def test_similarity_is_with_the_prompt(main: Any, meta: Path, wavs: Path, x_vectors: Path, tmp_path: Path) -> None:
    for number, name in enumerate(("same", "other", "short")):
        seconds = 0.2 if name == "short" else 1.0
        tone = 0.3 * np.sin(np.arange(int(16_000 * seconds)) * (0.02 + 0.2 * number)).astype(np.float32)
        write_audio(wavs / f"{name}.wav", tone, 16_000)
    shutil.copy(wavs / "same.wav", tmp_path / "prompt.wav")
    meta.write_text("same|x|prompt.wav|a\nother|x|prompt.wav|b\nshort|x|prompt.wav|c\nu1||| d\n")
    more = ("--audio", str(wavs), "--metrics", "sim_xvector", "--checkpoints", f"sim_xvector={x_vectors}")
    output = tmp_path / "r.json"
    main(arguments(meta, output, *more))
    similar = {name: row["scores"]["sim_xvector"] for name, row in rows_of(output).items()}
    assert similar["same"] == pytest.approx(1, abs=1e-5) and similar["other"] < 1 - 1e-6
    assert similar["short"] is None and similar["u1"] is None  # too short; without a prompt
    made = result(output)
    assert made["scores"]["sim_xvector"]["n"] == 2 and made["counts"]["sim_xvector_undefined"] == 2
    assert "hf download openai/whisper-large-v3" in made["unavailable"]["wer_macro"]  # the usual recogniser is not here
    # another prompt is another row
    shutil.copy(wavs / "other.wav", tmp_path / "prompt.wav")
    main(arguments(meta, output, *more, "--resume"))
    assert rows_of(output)["other"]["scores"]["sim_xvector"] == pytest.approx(1, abs=1e-5)
    (tmp_path / "prompt.wav").unlink()
    with pytest.raises(DataError, match=r"the prompt of same is needed .*--prompts"):
        main(arguments(meta, output, *more, "--resume"))
    (tmp_path / "prompts").mkdir()
    shutil.copy(wavs / "same.wav", tmp_path / "prompts" / "prompt.wav")
    main(arguments(meta, output, *more, "--prompts", str(tmp_path / "prompts")))
    assert rows_of(output)["same"]["scores"]["sim_xvector"] == pytest.approx(1, abs=1e-5)


def test_files_that_cannot_be_read(main: Any, meta: Path, wavs: Path, whisper: Path, tmp_path: Path) -> None:
    command = arguments(meta, tmp_path / "r.json", "--audio", str(wavs), "--asr", str(whisper))
    (wavs / "u2.wav").write_bytes(b"")
    (wavs / "u3.wav").write_text("no audio")
    with pytest.raises(DataError, match=r"utterance u2: .*empty file.*--allow_missing"):
        main(command)
    main([*command, "--allow_missing"])
    rows = rows_of(tmp_path / "r.json")
    assert [bool(rows[name]["missing"]) for name in TEXTS] == [False, True, True, False]
    assert rows["u3"]["scores"] == {"wer_macro": 1.0} and result(tmp_path / "r.json")["scores"]["seconds"]["n"] == 2
    write_audio(wavs / "u3.wav", np.ones(4_000, np.float32) / 8, 16_000)  # mended: looked at again
    main([*command, "--allow_missing", "--resume"])
    assert result(tmp_path / "r.json")["counts"]["missing"] == 1


def test_pocketsphinx_reads_espeak(main: Any, tmp_path: Path) -> None:
    """From a text to its error rates without a stand-in: synthesised speech, a real recogniser of the words of a grammar."""
    pytest.importorskip("pocketsphinx")
    pytest.importorskip("espeakng_loader")
    from alm.data.demo.effects import SAMPLING_RATE
    from alm.data.demo.speech import Speaker

    grammar = tmp_path / "words.jsgf"
    words = ["zero", "seven", "morning", "water", "saturday", "kitchen", "elephant", "umbrella"]
    grammar.write_text(f"#JSGF V1.0;\ngrammar words;\npublic <words> = ( {' | '.join(words)} )+ ;\n")
    texts = ["Elephant, kitchen: saturday morning.", "Seven umbrella, water!", "Morning, zero, zero."]
    for number, text in enumerate(texts):
        with Speaker() as voice:
            wave = voice.say(text, "en-us+f2", rate=140)
        pause = np.zeros(SAMPLING_RATE // 6)
        write_audio(tmp_path / "wavs" / f"{number}.wav", np.concatenate([pause, wave, pause]), SAMPLING_RATE)
    meta = tmp_path / "meta.lst"
    meta.write_text("".join(f"{number}|{text}\n" for number, text in enumerate(texts)))
    command = arguments(meta, tmp_path / "r.json", "--audio", str(tmp_path / "wavs"), "--asr", str(grammar))
    main(command)
    right = result(tmp_path / "r.json")
    assert right["scores"]["wer_macro"]["value"] == right["scores"]["wer_corpus"]["value"] == 0
    assert right["manifest"]["metrics"]["asr"].startswith("pocketsphinx ")
    (tmp_path / "wavs" / "2.wav").replace(tmp_path / "wavs" / "1.wav")  # "morning zero zero" for "seven umbrella water"
    main([*command, "--allow_missing", "--resume"])
    wrong = result(tmp_path / "r.json")
    assert wrong["scores"]["wer_macro"]["value"] == pytest.approx(2 / 3)
    assert wrong["scores"]["wer_pooled"]["value"] == pytest.approx(6 / 10)
    assert wrong["counts"] | {"items": 3, "missing": 1, "wer_over_half": 2} == wrong["counts"]


def test_dry_run_and_wrong_flags(main: Any, meta: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(arguments(meta, tmp_path / "x.json", "--model", "nowhere", "--dry_run"))
    told = capsys.readouterr().out
    assert "4 utterances" in told and "utmos" in told and not (tmp_path / "x.json").exists()
    for wrong in (
        [],
        ["--model", "x", "--audio", "y"],
        ["--audio", "x", "--zero_shot"],
        ["--transcripts", "x", "--asr", "y"],
        ["--model", "x", "--limit", "0"],
        ["--transcripts", str(tmp_path / "x.json")],  # would be replaced by the result
        ["--model", "x", "--language", "de"],
    ):
        with pytest.raises(SystemExit):
            main(arguments(meta, tmp_path / "x.json", *wrong))
    audio = ("--audio", str(tmp_path))
    for wrong, why in (
        (["--metrics", "stoi"], "same words"),
        (["--asr", "nobody/nothing"], "hf download nobody/nothing"),
        (["--require", "utmos", "--checkpoints", f"utmos={tmp_path / 'none'}"], "--require utmos"),
    ):
        with pytest.raises(DataError, match=why):
            main(arguments(meta, tmp_path / "x.json", *audio, *wrong))


@pytest.mark.slow
def test_killed_at_any_time_a_run_resumes_to_the_identical_files(
    main: Any, speaker: Path, meta: Path, whisper: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kill_when: Any
) -> None:
    given = arguments(meta, Path("r.json"), "--model", str(speaker), "--max_seconds", "0.6", "--asr", str(whisper))
    given += ["--batch_size", "1", "--resume"]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for folder in (whole, killed):
        folder.mkdir()
    monkeypatch.chdir(whole)
    main(given)
    monkeypatch.chdir(killed)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    for log in ("r.outputs.jsonl", "r.items.jsonl"):
        kill_when(SCRIPT, given, killed / log, 2)
        assert not (killed / "r.json").exists()
    main(given)
    for name in ("r.json", *(f"r.audio/{name}.wav" for name in TEXTS)):
        assert (killed / name).read_bytes() == (whole / name).read_bytes(), name
