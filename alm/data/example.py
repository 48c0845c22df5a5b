"""The one form in which every data set reaches training, evaluation and serving: chat messages with audio."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

Content = dict[str, Any]
Message = dict[str, Any]
"""`{"role": "user" | "assistant" | "system", "content": [{"type": "audio", "path": …} | {"type": "text", "text": …}, …]}`,
the form of Transformers' chat templates."""


@dataclass(frozen=True)
class Example:
    """One conversation of one data set.

    `id` is unique within the data set; `source` names the data set; `meta` keeps the row's other columns.
    """

    id: str
    source: str
    messages: list[Message]
    meta: dict[str, Any] = field(default_factory=dict)

    def audio_items(self) -> list[Content]:
        """All audio items of the conversation, in order of appearance."""
        return [item for message in self.messages for item in message["content"] if item["type"] == "audio"]

    def audio_paths(self) -> list[str]:
        """Paths of the audio files, in order of appearance; audio given as bytes, codes or a key has none."""
        return [item["path"] for item in self.audio_items() if not {"bytes", "codes", "key"} & item.keys()]


@dataclass
class ReadReport:
    """What a reader met: rows read, examples given, and rows dropped by reason (never silently).

    `excluded` counts, by test set, the examples whose clip is in it (`alm.data.leaks`); `unchecked` those that could not be looked up
    because nothing tells where their clip comes from.
    """

    source: str
    rows: int = 0
    examples: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    excluded: Counter[str] = field(default_factory=Counter)
    unchecked: int = 0
    missing_audio: list[str] = field(default_factory=list)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "ReadReport":
        """Read back a report that was stored as JSON."""
        return cls(**{**data, "dropped": Counter(data["dropped"])})


class DataError(ValueError):
    """A data set that cannot be used as it is: says which file and row, what was expected and what to do."""


TRANSCRIPT, CAPTION = "transcript", "caption"
"""What the text of a clip is: the words that are spoken in it, or a description of what is heard."""


def clip_with_text(
    example_id: str, source: str, audio: Content, text: str, kind: str, meta: dict[str, Any] | None = None
) -> Example:
    """A clip and its text (`kind`: `TRANSCRIPT` or `CAPTION`) as the simplest conversation: the clip, answered by the text.

    `audio` is an audio item without its type: `{"path": …}`, `{"bytes": …}` (an encoded file's, its name beside it as `path` where it
    has one) or `{"key": …}` (of the token store).
    `alm.data.tasks` makes of it what models are trained on: captioning, transcription, speaking, making the sound.
    """
    messages: list[Message] = [
        {"role": "user", "content": [{"type": "audio", **audio}]},
        {"role": "assistant", "content": [{"type": "text", "text": text}]},
    ]
    return Example(example_id, source, messages, {"kind": kind, **(meta or {})})


def question_answer(audio: Path | str | None, question: str, answer: str) -> list[Message]:
    """Messages of the commonest conversation: one audio, one question, one answer."""
    content: list[Content] = [{"type": "audio", "path": str(audio)}] if audio is not None else []
    return [
        {"role": "user", "content": [*content, {"type": "text", "text": question}]},
        {"role": "assistant", "content": [{"type": "text", "text": answer}]},
    ]


AUDIO_MISSING = "audio file missing"
"""The reason in `ReadReport.dropped` that `keep_with_audio` counts under, and holds to the limit."""
WRONG_FOLDER = 1000
"""So many examples, the first ones and all without their audio: the folder is wrong, and the rest is not looked at."""


def keep_with_audio(
    examples: Iterable[Example], report: ReadReport, max_missing: float | None = 0.1
) -> Iterator[Example]:
    """Pass on the examples whose audio files exist; count and list the others.

    Raises `DataError` at the end when more than the share `max_missing` of the examples lacks its audio (None: no limit), and early
    where the first `WRONG_FOLDER` all do. Memory grows with what is missing only.
    """
    missing = set(report.missing_audio)

    @lru_cache(maxsize=1 << 14)  # five captions or a hundred questions about one clip ask the disk once
    def is_there(path: str) -> bool:
        there = Path(path).is_file()
        if not there and path not in missing:
            missing.add(path)
            report.missing_audio.append(path)
        return there

    for example in examples:
        there = [
            is_there(path) for path in example.audio_paths()
        ]  # every one is looked at, so that all that miss are listed
        if all(there):
            report.examples += 1
            yield example
        else:
            report.dropped[AUDIO_MISSING] += 1
            if max_missing is not None and not report.examples and report.dropped[AUDIO_MISSING] >= WRONG_FOLDER:
                break
    lost, total = report.dropped[AUDIO_MISSING], report.examples + report.dropped[AUDIO_MISSING]
    if max_missing is not None and lost > max_missing * total:
        raise DataError(
            f"{report.source}: {lost} of {total} examples lack their audio file (first: {report.missing_audio[0]}); at most "
            f"{max_missing:.0%} may be missing. Check the audio folder, or raise the limit with --max_missing."
        )
