"""Word errors of recognised speech, and their rates over a set of clips."""

import importlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

from alm.scoring.sound.base import package
from alm.scoring.statistics import Estimate, bootstrap, bootstrap_ratio

INSTALL = "'jiwer>=4' 'whisper-normalizer>=0.1.12' (the extra `eval`)"


class WordErrors(NamedTuple):
    """Substitutions, deletions and insertions of one clip, and the words of its reference."""

    errors: int
    words: int


def word_counter() -> Callable[[str, str], WordErrors]:
    """Counts a hypothesis' errors against a reference, both in the form of Whisper's English normaliser.

    A reference that has no words in that form counts every word heard as an error. Raises `MetricUnavailable` without the packages.
    """
    for name in ("jiwer", "whisper_normalizer"):
        package(name, INSTALL)(None)
    jiwer = importlib.import_module("jiwer")
    normalise = importlib.import_module("whisper_normalizer.english").EnglishTextNormalizer()

    def count(reference: str, heard: str) -> WordErrors:
        said, got = normalise(reference).strip(), normalise(heard).strip()
        if not said or not got:
            return WordErrors(max(len(said.split()), len(got.split())), len(said.split()))
        found = jiwer.process_words(said, got)
        return WordErrors(found.substitutions + found.deletions + found.insertions, len(said.split()))

    return count


def rates(counts: Sequence[WordErrors]) -> dict[str, Estimate]:
    """`wer_corpus`: all errors over all words; `wer_macro`: mean of the clips' own rates (clips without words left out)."""
    spoken = [one for one in counts if one.words]
    if not spoken:
        return {}
    return {
        "wer_corpus": bootstrap_ratio([one.errors for one in counts], [one.words for one in counts]),
        "wer_macro": bootstrap([one.errors / one.words for one in spoken]),
    }
