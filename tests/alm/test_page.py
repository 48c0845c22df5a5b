"""What the page's buttons do, without a page."""

import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from alm.checkpoint import LoadedCheckpoint
from alm.generation import Sampling, answer, make_sound, speak
from codec.audio import read_audio, write_audio

pytest.importorskip("matplotlib")  # in the extras dev and page

from alm.page import __main__ as page
from alm.page.actions import about, ask, longest_seconds, make, round_trip
from alm.scoring.sound.spectrograms import spectrograms


@pytest.fixture
def clip(tmp_path: Path) -> str:
    write_audio(tmp_path / "a clip.wav", 0.5 * np.sin(np.arange(5_000) / 7), 24_000)
    return str(tmp_path / "a clip.wav")


def test_an_answer_is_the_tasks(language_model: LoadedCheckpoint, clip: str) -> None:
    reply = ask(language_model, clip, " what is heard? ", 12, 0.0, 1.0, 0)
    assert reply.text == answer(*language_model, "what is heard?", clip, max_new_tokens=12)
    assert reply.note.startswith("clip 0.22 s, 11 tokens · ")  # 5,000 samples are ten frames and a part
    assert "⚠" not in reply.note or "cut off after 12 tokens" in reply.note
    assert "⚠ cut off after 1 tokens" in ask(language_model, clip, "what is heard?", 1, 0.0, 1.0, 0).note


@pytest.mark.parametrize("task", [speak, make_sound])
def test_a_sound_is_the_tasks_and_is_heard_as_it_is_saved(
    language_model: LoadedCheckpoint, tmp_path: Path, task: Any
) -> None:
    for seed in range(3):
        made = make(task, language_model, "a dog barks", 0.4, 0.8, 0.95, 2.0, seed)
        sampling = Sampling(temperature=0.8, top_p=0.95)
        sound = task(*language_model, "a dog barks", max_seconds=0.4, sampling=sampling, guidance_scale=2.0, seed=seed)
        sound.save(tmp_path / "a.wav")
        samples, rate = soundfile.read(tmp_path / "a.wav", dtype="int16")
        assert made.player[0] == rate
        np.testing.assert_array_equal(made.player[1], samples)
        assert f"{sound.seconds:.2f} s · {sound.codes.size} tokens" in made.note and f"seed {seed}" in made.note
        assert ("⚠ cut at 0.4 s" in made.note) == sound.forced_end
    assert 0 < len(make(task, language_model, "a dog", 0.05, 0.8, 1.0, 1.0, 0).player[1]) <= 0.05 * rate


def test_a_round_trip_is_the_codecs(make_language_model: Any, make_toy_codec: Any, clip: str) -> None:
    codec = make_toy_codec(4, 16)
    _, processor = make_language_model(codec=codec)
    shown = round_trip(processor, clip)
    wave = read_audio(clip, 24_000)
    (made,) = codec.decode(codec.encode([wave]))
    np.testing.assert_allclose(shown.original[1] / 32768, wave, atol=1e-4)
    np.testing.assert_allclose(shown.reconstruction[1] / 32768, made, atol=1e-4)
    assert "44 tokens, 200 a second, 800 bits a second" in shown.note


def test_mistakes_are_told_in_a_sentence(make_language_model: Any, tmp_path: Path, clip: str) -> None:
    loaded = make_language_model(max_length=64)
    (tmp_path / "words.wav").write_text("these are words")
    write_audio(tmp_path / "long.wav", np.zeros(48_000), 24_000)
    mistakes = {
        None: "no clip",
        f"{tmp_path}/words.wav": "^words.wav: not an audio file",
        f"{tmp_path}/gone.wav": "^gone.wav: no such file",
        f"{tmp_path}/long.wav": "^long.wav: 2.0 s of audio",
    }
    for path, message in mistakes.items():
        for action in (partial(round_trip, loaded.processor), lambda p: ask(loaded, p, "what?", 1, 0.0, 1.0, 0)):
            with pytest.raises(ValueError, match=message) as caught:
                action(path)
            assert str(tmp_path) not in str(caught.value)
    for text in ("", " \n", None):
        with pytest.raises(ValueError, match="text is empty"):
            make(speak, loaded, text, 1.0, 0.8, 1.0, 1.0, 0)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="text is empty"):
            ask(loaded, clip, text, 1, 0.0, 1.0, 0)  # type: ignore[arg-type]
    for seed in (None, -1, 0.5):
        with pytest.raises(ValueError, match=f"seed is a whole number from 0, got {seed}"):
            make(speak, loaded, "a dog", 1.0, 0.8, 1.0, 1.0, seed)
    for seconds, message in ((2.0, "max_seconds"), (0.001, "under the least|frame")):
        with pytest.raises(ValueError, match=message):
            make(speak, loaded, "a dog", seconds, 0.8, 1.0, 1.0, 0)


@pytest.mark.parametrize(("max_length", "seconds"), [(None, 60.0), (10_000, 60.0), (512, 8.0), (100, 0.7), (10, 0.1)])
def test_the_longest_sound_on_offer_fits(make_language_model: Any, max_length: int | None, seconds: float) -> None:
    loaded = make_language_model(max_length=max_length)
    assert longest_seconds(loaded.processor) == seconds
    if seconds < 60 and seconds > 0.1:
        make(speak, loaded, "a dog", seconds, 0.8, 1.0, 1.0, 0)


def test_what_was_loaded_is_told(make_language_model: Any, make_toy_codec: Any) -> None:
    loaded = make_language_model(codec=make_toy_codec(4, 16))
    line = about(loaded, "demo")
    assert line.startswith("demo · ") and "4 × 16 codes, 200 tokens a second" in line
    assert loaded.processor.vocabulary.hash in line


def test_spectrograms_show_where_the_sound_is() -> None:
    tone = np.sin(np.arange(24_000) / 5).astype(np.float32)
    tone[:12_000] = 0
    one = spectrograms({"generated": tone}, 24_000)
    assert one.dtype == np.uint8 and one.shape[1:] == (1_000, 3)
    left, right = one[40:180, 150:450].mean(), one[40:180, 600:900].mean()
    assert right > 1.2 * left
    two = spectrograms({"original": tone, "reconstruction": np.zeros(1, np.float32)}, 16_000)  # silence of one sample
    assert two.shape == (2 * one.shape[0], 1_000, 3)


def test_the_command_is_quick_to_explain_itself(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    program = "import sys; from alm.page.__main__ import main\ntry: main(['--help'])\nfinally: assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "--share" in done.stdout, done.stderr
    monkeypatch.setattr(page, "find_spec", lambda name: None)
    with pytest.raises(SystemExit):
        page.main(["nowhere"])
    assert "pip install -e '.[page]'" in capsys.readouterr().err
