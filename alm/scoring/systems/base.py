"""What a benchmark asks of a system, whoever made it: texts in answer to requests, and where it can, scores of given answers.

Needs no torch. A request is a text and a clip's path, already worded by a named prompt; how it reaches the model (chat template,
codec, server) is the system's own affair. What a run needs beside (log, controls, tables) is in `alm.scoring.choice_loop` and
`alm.scoring.choice_run`, the same for all systems.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable


class Request(NamedTuple):
    """One user turn: `text`, after the clip at `audio` (None: without a clip).

    `choices` are the answers that `ChoiceScorer.score` is to score; `closed` says whether the end of the turn belongs to each of
    them. It does for an answer's text, or "guitar" would never lose to "guitar and drums"; it does not for an option's letter, of
    which the next token is scored as everybody does.
    """

    text: str
    audio: Path | None = None
    choices: tuple[str, ...] = ()
    closed: bool = True


class GeneratedText(NamedTuple):
    """A system's answer, whether it ended by itself (False: cut at the limit), and its prompt's length where it is known."""

    text: str
    stopped: bool = True
    prompt_tokens: int | None = None


class ChoiceScores(NamedTuple):
    """Per choice, in order: the log-probability of all its tokens (natural logarithm), and how many they are."""

    sums: tuple[float, ...]
    tokens: tuple[int, ...]

    @property
    def means(self) -> tuple[float, ...]:
        """Log-probability per token."""
        return tuple(total / count for total, count in zip(self.sums, self.tokens, strict=True))


class Refused(NamedTuple):
    """A request that cannot be answered, and why: an unreadable clip, a prompt too long. Counts as wrong and is listed."""

    reason: str


class System(Protocol):
    """Answers requests. A reply must not depend on what else is in the batch (a test holds our own to that)."""

    @property
    def label(self) -> str:
        """Its name in results, where `--system` gives none."""

    @property
    def identity(self) -> dict[str, Any]:
        """All that decides its replies, as JSON values: weights, tokenizer, codec, precision, server and model name, …

        Goes into the manifest and into the key under which rows of an interrupted run are taken over. What is not in it is
        silently taken for the same system.
        """

    def answer(self, batch: Sequence[Request], max_new_tokens: int) -> list[GeneratedText | Refused]:
        """Greedy answers in order. A request that fails for a reason of its own is `Refused`; a dead server is an exception."""


@runtime_checkable
class ChoiceScorer(Protocol):
    """A `System` that can also tell how likely given answers are; the scores by log-likelihood need one."""

    def score(self, batch: Sequence[Request]) -> list[ChoiceScores | Refused]:
        """Log-probabilities of every request's `choices` as its answers, in order."""


@runtime_checkable
class PartialListener(Protocol):
    """A `System` that may hear less than a whole clip; the run counts where it does."""

    def heard_seconds(self, audio: Path) -> float | None:
        """Seconds, from its beginning, that it heard of a clip it was asked about; None where it heard all."""
