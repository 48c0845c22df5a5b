"""SEED-TTS-eval's rule on the cases that part it from other rules; expectations worked out by hand from its text."""

import pytest

from alm.data.example import DataError
from alm.scoring.speech.seed_rule import HANZI_PUNCTUATION, normalise, seed_counter, simplifier

pytest.importorskip("jiwer")


@pytest.mark.parametrize(
    ("said", "heard", "rate"),
    [
        ("Get the trust fund.", "get the trust fund", 0.0),
        ("Yes.", "", 1.0),
        ("Yes.", "one two three four five six seven eight nine", 9.0),  # a rate has no upper end
        ("Stop—now.", "Stop now.", 2.0),  # the dash goes and joins its words: "stopnow"
        ("and/or", "and or", 2.0),
        ("I have twenty-one of them", "I have twenty one of them", 0.4),
        ("don't", "don\u2019t", 1.0),  # the typewriter's apostrophe stays, the other goes
        ("a\u00a0b", "a b", 2.0),  # a no-break space parts no words
        ("fifty cats", "50 cats", 0.5),  # numbers are not written out
        ("one  two", "one two", 0.0),
        ("say a - b", "say a b", 0.0),  # "a  b": the blanks around what went are one
        ("it's well-known", "its well known", 1.5),
        ("Hello", "  HELLO  ", 0.0),
        ("Γειά σου", "γειά ΣΟΥ", 0.0),
        ("caf\u00e9", "cafe\u0301", 1.0),  # Unicode forms are not brought together
        ("one\ttwo", "one two", 2.0),
    ],
)
def test_english(said: str, heard: str, rate: float) -> None:
    errors, words = seed_counter("en")(said, heard)
    assert errors / words == pytest.approx(rate)


@pytest.mark.parametrize(
    ("said", "heard", "errors", "characters"),
    [
        ("你好,世界。", "你好世界", 0, 4),
        ("你好世界", "你好", 2, 4),
        ("用GPT", "用gpt", 3, 4),  # Latin letters keep their case
        ("你好", "你 好", 0, 2),  # Paraformer parts its characters by blanks
        ("你好", "", 2, 2),
        ("他说：“好”", "他说好吗", 1, 3),
        ("it's 好", "its 好", 1, 5),  # the apostrophe is a character
        ("二十", "20", 2, 2),
    ],
)
def test_chinese_is_counted_by_characters(said: str, heard: str, errors: int, characters: int) -> None:
    assert seed_counter("zh")(said, heard) == (errors, characters)


def test_only_what_is_heard_is_simplified() -> None:
    pytest.importorskip("zhconv")
    count, simplify = seed_counter("zh"), simplifier("zh")
    assert simplify("漢語") == "汉语" and simplifier("en")("漢語") == "漢語"
    assert count("汉语", simplify("漢語")).errors == 0
    assert count("漢語", simplify("漢語")).errors == 2


def test_the_punctuation_is_zhons() -> None:
    assert pytest.importorskip("zhon.hanzi").punctuation == HANZI_PUNCTUATION


def test_what_is_deleted() -> None:
    assert len(set(HANZI_PUNCTUATION)) == 82
    assert normalise("It's 5-fold (A/B)!", "en") == "it's 5fold ab"
    # one pass: four blanks become two
    assert normalise("a    b", "en") == "a  b"
    assert normalise("你好", "zh") == "你 好"


def test_a_text_without_words_has_no_rate() -> None:
    with pytest.raises(DataError, match=r"leaves no word of the text '\.\.\.'"):
        seed_counter("en")("...", "anything")


def test_macro_and_pooled_part_where_lengths_differ() -> None:
    counts = [seed_counter("en")(*pair) for pair in (("yes", "no way"), ("a b c d e f g h i", "a b c d e f g h i"))]
    assert sum(errors / words for errors, words in counts) / 2 == 1.0
    assert sum(errors for errors, _ in counts) / sum(words for _, words in counts) == 0.2
