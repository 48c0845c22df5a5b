"""What GRPO's turns may be and who judges them, as the arguments name it; what is missing is said before anything is trained."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from alm.arguments import ConfigFileError
from alm.data.example import DataError
from alm.generation.grammar import AudioGrammar
from alm.generation.tasks import require_waveforms, span_grammar
from alm.preference import rewards
from alm.preference.arguments import PreferenceArguments
from alm.preference.questions import TEXT
from alm.processing import AudioLanguageProcessor
from alm.scoring.sound.clap import find_clap, load_clap
from alm.scoring.speech import recognition
from alm.scoring.speech.words import word_counter
from alm.vocabulary import AudioVocabulary

OTHER_KIND = {TEXT: ("wer", "clap")}
"""Rewards that judge no turn of a kind; of audio, `choice`."""

NEEDED = {"choice": ("choices", "choices"), "wer": ("say", "say"), "clap": ("caption", "sound")}
"""What a reward holds a turn against: a column of the questions, and its name in a row of --data."""


def require_right_kind(names: Sequence[str], kind: str) -> None:
    """Raise `ConfigFileError` where a reward of `--rewards` judges no turn of this kind."""
    if wrong := [name for name in names if name in OTHER_KIND.get(kind, ("choice",))]:
        raise ConfigFileError(f"--rewards {' '.join(wrong)} judge other turns than the {kind} that --data asks for")


def require_judged(names: Sequence[str], questions: Any, file: str) -> None:
    """Raise `DataError` where a reward of `--rewards` has nothing to hold any turn of `file` against: it would be 0 or none throughout."""
    for name in names:
        column, written = NEEDED.get(name, (None, ""))
        if column is not None and not any(questions[column]):
            raise DataError(
                f"--rewards {name}: no row of {file} has {written!r}, which it judges by; give such rows, or other --rewards"
            )


def grammar_of(args: PreferenceArguments, training: Any, vocabulary: AudioVocabulary, kind: str) -> AudioGrammar:
    """What a turn may be; for audio TRL's limit of new ids is set to what the longest span takes."""
    if kind == TEXT:
        return AudioGrammar(vocabulary, text=True, max_spans=0)
    grammar = span_grammar(vocabulary, args.min_seconds, args.max_seconds)
    training.max_completion_length = grammar.max_span_ids + 1
    return grammar


class Judges(NamedTuple):
    """Reward functions in the order named, and the models they listen with: reward → name and revision."""

    rewards: list[Any]
    labels: dict[str, str]

    @classmethod
    def of(
        cls,
        args: PreferenceArguments,
        processor: AudioLanguageProcessor,
        grammar: AudioGrammar,
        device: str = "cpu",
    ) -> "Judges":
        """The rewards of `--rewards`. Raises `ConfigFileError` where one hears nothing, `MetricUnavailable` without its model."""
        if {"wer", "clap"} & set(args.rewards):
            _require_waveforms(processor)
        make: dict[str, Callable[[], tuple[Any, str]]] = {
            "choice": lambda: (rewards.choice_accuracy, ""),
            "validity": lambda: (rewards.Validity(grammar, processor), ""),
            "wer": lambda: _words(args.asr, processor, device),
            "clap": lambda: _clap(args.clap, processor, device),
        }
        made = {name: make[name]() for name in args.rewards}
        return cls([reward for reward, _ in made.values()], {name: label for name, (_, label) in made.items() if label})


def _words(name: str, processor: AudioLanguageProcessor, device: str) -> tuple[Any, str]:
    hear = recognition.load_recogniser(recognition.find_recogniser(name), device)
    judge = rewards.SpokenWords(processor, hear, word_counter(), recognition.SAMPLING_RATE)
    return judge, f"{hear.label}, Whisper's English normaliser"


def _clap(name: str, processor: AudioLanguageProcessor, device: str) -> tuple[Any, str]:
    found = find_clap(name)
    clap = load_clap(found, device)
    return rewards.CaptionSimilarity(processor, clap.similarity, clap.sampling_rate), found.label


def _require_waveforms(processor: AudioLanguageProcessor) -> None:
    try:
        require_waveforms(processor)
    except ValueError as error:
        raise ConfigFileError(
            f"--rewards wer and clap listen to waveforms, and the codec makes none: {error}"
        ) from error
