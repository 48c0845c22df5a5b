"""Word errors of recognised speech, and their rates over a set of clips."""

import csv
import hashlib
import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from alm.data.example import DataError
from alm.scoring.sound.base import MetricUnavailable, Pair, Waveform, package
from alm.scoring.speech.recognition import SAMPLING_RATE, find_recogniser, load_recogniser
from alm.scoring.statistics import Estimate, bootstrap, bootstrap_ratio

SCORES = ("wer_corpus", "wer_macro")

INSTALL = "'jiwer>=4' 'whisper-normalizer>=0.1.12' (the extra `eval`)"


class WordErrors(NamedTuple):
    """Substitutions, deletions and insertions of one clip, and the words of its reference."""

    errors: int
    words: int


def word_counter(language: str = "en") -> Callable[[str, str], WordErrors]:
    """Counts a hypothesis' errors against a reference, both in the form of Whisper's normaliser: the English one, or the one of other
    languages with each character a word, which is how Whisper's authors score Chinese.

    A reference that has no words in that form counts every word heard as an error. Raises `MetricUnavailable` without the packages.
    """
    for name in ("jiwer", "whisper_normalizer"):
        package(name, INSTALL)(None)
    jiwer = importlib.import_module("jiwer")
    english, other = (importlib.import_module(f"whisper_normalizer.{name}") for name in ("english", "basic"))
    normalise = english.EnglishTextNormalizer() if language == "en" else other.BasicTextNormalizer(split_letters=True)

    def count(reference: str, heard: str) -> WordErrors:
        said, got = normalise(reference).strip(), normalise(heard).strip()
        if not said or not got:
            return WordErrors(max(len(said.split()), len(got.split())), len(said.split()))
        found = jiwer.process_words(said, got)
        return WordErrors(found.substitutions + found.deletions + found.insertions, len(said.split()))

    return count


@dataclass(frozen=True)
class WordScorer:
    """Recognises clips whose text is known. `label` names recogniser, normaliser and transcripts."""

    texts: Mapping[str, str]
    hear: Callable[[Waveform], str]
    count: Callable[[str, str], WordErrors]
    label: str

    def row(self, name: str, pair: Pair, originals: bool = True) -> dict[str, Any] | None:
        """What was said, and what is heard in the reconstruction and (where `originals`) in the original; None without a text."""
        text = self.texts.get(Path(name).name)
        if text is None:
            return None
        original, made = pair.at(SAMPLING_RATE)
        row: dict[str, Any] = {"said": text, "made": self._heard(text, made)}
        return row | {"original": self._heard(text, original)} if originals else row

    def _heard(self, text: str, waveform: Waveform) -> dict[str, Any]:
        heard = self.hear(waveform)
        return {"heard": heard, **self.count(text, heard)._asdict()}


def word_scorer(transcripts: str | None, asr: str, device: str = "cpu") -> WordScorer | str:
    """A scorer for a CSV file of transcripts (file_name,text) and a recogniser by name, or why there can be none."""
    if transcripts is None:
        return "word error rates need what was said: --transcripts FILE.csv (file_name,text)"
    texts = read_transcripts(Path(transcripts))
    try:
        count, found = word_counter(), find_recogniser(asr)
    except MetricUnavailable as error:
        return str(error)
    recogniser = load_recogniser(found, device)
    said = hashlib.sha256(Path(transcripts).read_bytes()).hexdigest()[:16]  # rows of other texts are not taken over
    label = f"{recogniser.label}, Whisper's English normaliser, transcripts sha256 {said}"
    return WordScorer(texts, recogniser, count, label)


def read_transcripts(path: Path) -> dict[str, str]:
    """Texts by file name without folder and suffix. Raises `DataError` for another table, or one name with two texts."""
    try:
        with path.open(newline="", encoding="utf-8") as lines:
            rows = list(csv.DictReader(lines))
    except OSError as error:
        raise DataError(f"--transcripts {path}: {error.strerror}") from error
    if not rows or not {"file_name", "text"} <= rows[0].keys():
        raise DataError(f"--transcripts {path}: a CSV file with the columns file_name and text is needed")
    texts: dict[str, str] = {}
    for row in rows:
        name = Path(row["file_name"]).stem
        if texts.setdefault(name, row["text"]) != row["text"]:
            raise DataError(f"--transcripts {path}: two texts for files called {name}")
    return texts


def rates(counts: Sequence[WordErrors]) -> dict[str, Estimate]:
    """`wer_corpus`: all errors over all words; `wer_macro`: mean of the clips' own rates (clips without words left out)."""
    spoken = [one for one in counts if one.words]
    if not spoken:
        return {}
    return {
        "wer_corpus": bootstrap_ratio([one.errors for one in counts], [one.words for one in counts]),
        "wer_macro": bootstrap([one.errors / one.words for one in spoken]),
    }
