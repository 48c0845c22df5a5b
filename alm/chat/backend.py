"""What captioning and evaluation know of a model that is not ours: it hears a clip and continues a conversation about it."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray


class Turn(NamedTuple):
    """One turn of the conversation about a clip; the audio belongs in front of the first."""

    role: Literal["user", "assistant"]
    text: str


class Conversation(NamedTuple):
    """A mono clip `(S,)` at the model's rate (None: there is none) and what has been said about it."""

    waveform: NDArray[np.float32] | None
    turns: Sequence[Turn]


class Reply(NamedTuple):
    """What the model said, the tokens it took where that is known, `cut` where its limit of new tokens ended it, and its own name."""

    text: str
    prompt_tokens: int | None = None
    answer_tokens: int | None = None
    cut: bool = False
    model: str = ""


class BackendError(ValueError):
    """Nothing can be asked any more: wrong key, address or model, or a server that is gone. The run stops."""


class ClipError(ValueError):
    """Nothing can be said about this clip; others may do."""


class Backend(Protocol):
    """A model that hears."""

    sampling_rate: int
    """Hz of the waveforms that `ask` takes."""

    @property
    def settings(self) -> dict[str, Any]:
        """Everything of the model and its decoding that decides a reply, for the manifest; no secret."""

    def ask(self, waveform: NDArray[np.float32] | None, turns: Sequence[Turn]) -> Reply:
        """The next turn of the assistant about a mono clip `(S,)`, if any. Raises `ClipError` or `BackendError`; thread-safe."""

    def stop(self) -> None:
        """Make waiting calls of `ask` in other threads give up with `BackendError`."""
