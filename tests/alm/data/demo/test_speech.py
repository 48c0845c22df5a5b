"""espeak-ng through ctypes: every voice exists, a clip does not depend on what was said before it, errors are clear."""

import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("espeakng_loader")

from alm.data.demo.effects import SAMPLING_RATE, Wave, seconds
from alm.data.demo.lexicon import ACCENTS, CARRIERS, PHRASES, PITCHES, RATES, SENTENCES, VOICES, WORD_RATE, WORDS
from alm.data.demo.speech import Speaker, espeak_paths, espeak_version
from alm.data.example import DataError

ALL_VOICES = [voice for voices in VOICES.values() for voice in voices]


def pitch(wave: Wave) -> float:
    """Median fundamental in Hz of the strongly periodic 43-ms frames, by autocorrelation."""
    found = []
    for start in range(0, len(wave) - 1_024, 512):
        frame = wave[start : start + 1_024] - wave[start : start + 1_024].mean()
        correlation = np.fft.irfft(np.abs(np.fft.rfft(frame, 2_048)) ** 2)
        lag = 60 + int(np.argmax(correlation[60:400]))
        if correlation[lag] > 0.5 * correlation[0] > 0:
            found.append(SAMPLING_RATE / lag)
    return float(np.median(found))


def test_every_variant_is_a_file_of_the_library() -> None:
    folder = Path(espeak_paths()[1]) / "voices" / "!v"
    assert {voice.variant for voice in ALL_VOICES} <= {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("voice", ALL_VOICES, ids=lambda voice: voice.variant)
def test_voices_sound_like_their_sex(voice: tuple[str, str]) -> None:
    for height in PITCHES[voice[1]]:
        with Speaker() as speaker:
            heard = pitch(speaker.say("I like the mountain and the garden.", f"en-us+{voice[0]}", pitch=height))
        assert heard < 135 if voice[1] == "man" else heard > 145


@pytest.mark.parametrize("accent", ACCENTS)
def test_an_utterance_does_not_depend_on_what_was_said_before(accent: str) -> None:
    for voice in (ALL_VOICES[0], ALL_VOICES[-1]):
        spoken = []
        for before in ((), ("Something else, and longer.",)):
            with Speaker() as speaker:  # another clip
                for text in before:
                    speaker.say(text, "en-us+m7")
            with Speaker() as speaker:
                spoken.append(speaker.say("Where is the tiger?", f"{accent}+{voice.variant}", 180))
        assert spoken[0].tobytes() == spoken[1].tobytes()


def test_rates_differ_and_the_longest_sentence_fits() -> None:
    texts = [text.format("umbrella") for texts in SENTENCES.values() for text in texts]
    lengths = {}
    for name, rate in (("slow", RATES["slow"][0]), ("normal", RATES["normal"][0]), ("fast", RATES["fast"][0])):
        with Speaker() as speaker:
            lengths[name] = [len(speaker.say(text, "en-us+m2", rate)) for text in texts]
    assert max(lengths["slow"]) < seconds(2.9)
    for slow, normal, fast in zip(*lengths.values(), strict=True):
        assert slow > 1.3 * normal > 1.69 * fast
    with Speaker() as speaker:
        for carrier in (carrier for carriers in CARRIERS.values() for carrier in carriers):
            assert len(speaker.say(carrier.format("umbrella"), "en-us+m8", WORD_RATE[0])) < seconds(2.9)


def test_sentences_are_disjoint_and_hold_no_other_keyword() -> None:
    for texts in (CARRIERS, SENTENCES, PHRASES):
        assert not set(texts["train"]) & set(texts["test"])
        assert not any(word in text.lower() for part in texts.values() for text in part for word in WORDS)
    assert not {voice.variant for voice in VOICES["train"]} & {voice.variant for voice in VOICES["test"]}
    assert all(text.count("{}") == 1 for part in SENTENCES.values() for text in part)
    assert all(text.count("{0}") == 2 for part in CARRIERS.values() for text in part)


def test_an_unknown_voice_is_a_clear_error() -> None:
    with Speaker() as speaker, pytest.raises(DataError, match="no voice 'xx\\+m3'"):
        speaker.say("Hello.", "xx+m3")
    with Speaker() as speaker, pytest.raises(DataError, match="said nothing"):
        speaker.say(" ", "en-us+m3")


def test_a_missing_package_names_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    with pytest.raises(DataError, match=r'pip install "entangle-alm\[demo\]"'):
        espeak_version()
