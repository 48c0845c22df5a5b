"""SEED-TTS-eval's own word error rate, bit for bit (https://github.com/BytedanceSpeech/seed-tts-eval, `run_wer.py`).

Numbers are not written out, hyphens and slashes vanish and join their words, only the typewriter's apostrophe stays; Chinese is counted by
characters, of which Latin letters keep their case. The figure of a set is the mean of its utterances' rates.
"""

import importlib
import string
from collections.abc import Callable

from alm.data.example import DataError
from alm.scoring.sound.base import package
from alm.scoring.speech.words import INSTALL, WordErrors

LANGUAGES = ("en", "zh")
HANZI_PUNCTUATION = (
    "＂＃＄％＆＇（）＊＋，－／：；＜＝＞＠［＼］＾＿｀｛｜｝～｟｠｢｣､\u3000、〃〈〉《》「」『』【】〔〕〖〗〘〙〚〛〜〝〞〟〰〾〿"
    "–—‘’‛“”„‟…‧﹏﹑﹔·．！？｡。"
)
"""`zhon.hanzi.punctuation` of zhon 2.1.1, 82 characters (a test holds them equal): written out, so that no version moves the figure."""
DELETED = str.maketrans("", "", (HANZI_PUNCTUATION + string.punctuation).replace("'", ""))


def normalise(text: str, language: str) -> str:
    """A reference or hypothesis as the rule compares it."""
    # one pass, as the rule has it: four blanks become two
    text = text.translate(DELETED).replace("  ", " ")
    return text.lower() if language == "en" else " ".join(text)


def simplifier(language: str) -> Callable[[str], str]:
    """Brings a Chinese hypothesis (never the reference) to simplified characters. Raises `MetricUnavailable` without zhconv."""
    if language != "zh":
        return lambda heard: heard
    package("zhconv", "'zhconv>=1.4.3' (the extra `zh`)")(None)
    convert = importlib.import_module("zhconv").convert
    return lambda heard: convert(heard, "zh-cn")


def seed_counter(language: str) -> Callable[[str, str], WordErrors]:
    """Counts a hypothesis' errors against a reference. Words are what jiwer takes for them: split at the ordinary blank alone.

    Raises `MetricUnavailable` without jiwer; the counter raises `DataError` on a reference of which the rule leaves no word.
    """
    package("jiwer", INSTALL)(None)
    process_words = importlib.import_module("jiwer").process_words

    def count(reference: str, heard: str) -> WordErrors:
        said, got = normalise(reference, language), normalise(heard, language)
        if not said.strip():
            raise DataError(f"the rule leaves no word of the text {reference!r}: its rate of errors is undefined")
        found = process_words(said, got)
        errors = found.substitutions + found.deletions + found.insertions
        return WordErrors(errors, found.hits + found.substitutions + found.deletions)

    return count
