"""The one form in which every data set reaches training, evaluation and serving: chat messages with audio."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
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

    def audio_paths(self) -> list[str]:
        """Paths of all audio in the conversation, in order of appearance."""
        return [item["path"] for message in self.messages for item in message["content"] if item["type"] == "audio"]


@dataclass
class ReadReport:
    """What a reader met: rows read, examples given, and rows dropped by reason (never silently)."""

    source: str
    rows: int = 0
    examples: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    missing_audio: list[str] = field(default_factory=list)


class DataError(ValueError):
    """A data set that cannot be used as it is: says which file and row, what was expected and what to do."""


TRANSCRIPT, CAPTION = "transcript", "caption"
"""What the text of a clip is: the words that are spoken in it, or a description of what is heard."""


def clip_with_text(
    example_id: str, source: str, audio: Content, text: str, kind: str, meta: dict[str, Any] | None = None
) -> Example:
    """A clip and its text (`kind`: `TRANSCRIPT` or `CAPTION`) as the simplest conversation: the clip, answered by the text.

    `audio` is an audio item without its type: `{"path": …}`, `{"bytes": …}` (an encoded file's) or `{"key": …}` (of the token store).
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


def keep_with_audio(
    examples: Iterable[Example], report: ReadReport, max_missing: float | None = 0.1
) -> Iterator[Example]:
    """Pass on the examples whose audio files exist; count and list the others.

    Raises `DataError` at the end when more than the share `max_missing` of the examples lacks its audio (None: no limit).
    """
    seen: dict[str, bool] = {}
    for example in examples:
        paths = example.audio_paths()
        for path in paths:
            if path not in seen:
                seen[path] = Path(path).is_file()
                if not seen[path]:
                    report.missing_audio.append(path)
        if all(seen[path] for path in paths):
            report.examples += 1
            yield example
        else:
            report.dropped["audio file missing"] += 1
    lost, total = report.dropped["audio file missing"], report.examples + report.dropped["audio file missing"]
    if max_missing is not None and lost > max_missing * total:
        raise DataError(
            f"{report.source}: {lost} of {total} examples lack their audio file (first: {report.missing_audio[0]}); at most "
            f"{max_missing:.0%} may be missing. Check the audio folder, or raise the limit with --max_missing."
        )
