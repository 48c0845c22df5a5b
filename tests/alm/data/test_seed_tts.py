"""Lists of utterances in their published forms, and what is refused."""

import os
from pathlib import Path

import pytest

from alm.data.example import DataError
from alm.data.seed_tts import Utterance, read

FORMS = [
    ("a|hello", Utterance("a", "hello")),
    ("a.wav|hello|p.wav", Utterance("a", "hello", prompt_audio="p.wav")),
    ("a|said|p.wav|hello there.", Utterance("a", "hello there.", "said", "p.wav")),
    ("a|said|p.wav|hello|r.wav", Utterance("a", "hello", "said", "p.wav", "r.wav")),
    ("a|||hello", Utterance("a", "hello")),
    ("a\tsaid\tp.wav\tleft | right", Utterance("a", "left | right", "said", "p.wav")),
    (
        "1-2-3\t2.5\tsaid\t4-5-6\t3.5\thello",
        Utterance("4-5-6", "hello", "said", "1/2/1-2-3.flac", "4/5/4-5-6.flac"),
    ),
]


@pytest.mark.parametrize(("line", "expected"), FORMS)
def test_forms(tmp_path: Path, line: str, expected: Utterance) -> None:
    (tmp_path / "meta.lst").write_text(f"\n{line}\n\n", encoding="utf-8")
    assert read(tmp_path / "meta.lst").items == (expected,)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a|b|c|d|e|f", "line 1: 'a|b|c|d|e|f' has none of the known forms"),
        ("a|x\na|y", "line 2: id 'a' occurs twice"),
        ("a| ", "line 1: no text to be spoken"),
        ("../a|x", "cannot name a file"),
        ("", "no utterances in it"),
    ],
)
def test_refused(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "meta.lst").write_text(text, encoding="utf-8")
    with pytest.raises(DataError) as info:
        read(tmp_path / "meta.lst")
    assert told in str(info.value)


@pytest.mark.skipif("READERS_METADATA" not in os.environ, reason="set READERS_METADATA to the folder of real metadata")
def test_the_published_list() -> None:
    path = Path(os.environ["READERS_METADATA"]) / "seedtts" / "librispeech_pc_test_clean_cross_sentence.lst"
    items = read(path).items
    assert len(items) == 1127 and all(item.prompt_text and item.reference_audio for item in items)
