"""A model behind an OpenAI-compatible server that takes audio (vLLM with Qwen2-Audio, a paid service, …).

MiMo-Audio, the paper's captioner, is served by vLLM-Omni, with a chat template of its own:
https://docs.vllm.ai/projects/vllm-omni/en/stable/user_guide/examples/online_serving/mimo_audio/

Requests are `POST BASE/chat/completions` with the clip as `input_audio` (base64 of a 16-bit WAV), as
https://platform.openai.com/docs/guides/audio and https://docs.vllm.ai/en/latest/features/multimodal_inputs.html describe.
"""

import base64
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

from alm.chat.backend import BackendError, ClipError, Reply, Turn
from alm.chat.transport import Http


@dataclass
class Server:
    """`Backend` over HTTP. `temperature` 0 is greedy; `http` keeps address, key, timeouts and attempts."""

    http: Http
    model: str
    temperature: float = 0.0
    max_new_tokens: int = 512
    sampling_rate: int = 16_000

    @property
    def settings(self) -> dict[str, Any]:
        """See `Backend`. The address is no part of it: the same model may move."""
        return {
            "backend": "server",
            "model": self.model,
            "temperature": self.temperature,
            "max_new_tokens": self.max_new_tokens,
            "sampling_rate": self.sampling_rate,
        }

    def ask(self, waveform: NDArray[np.float32] | None, turns: Sequence[Turn]) -> Reply:
        """See `Backend`. Raises `ClipError` where the server refuses this clip or gives no answer to it."""
        body = {
            "model": self.model,
            "messages": _messages(None if waveform is None else _wav(waveform, self.sampling_rate), turns),
            "temperature": self.temperature,
            "max_tokens": self.max_new_tokens,
            "modalities": ["text"],  # a model that can also speak (MiMo-Audio behind vLLM-Omni) need not
        }
        return self.http.post("chat/completions", body, _reply)

    def stop(self) -> None:
        """See `Backend`."""
        self.http.stopped.set()

    def described(self) -> dict[str, Any]:
        """What the server tells of the model in its list of models, as names and plain values; nothing where it tells nothing.

        When it was loaded is left out: it is no property of the model. Raises `BackendError` where no server answers; a server that
        has no such list, or does not show it, tells nothing.
        """
        try:
            entries = self.http.get("models", _models)
        except (ClipError, BackendError):
            if not self.http.answered:
                raise
            return {}
        told = next((entry for entry in entries if entry.get("id") == self.model), {})
        return {name: value for name, value in told.items() if name != "created" and isinstance(value, str | int)}


def _wav(waveform: NDArray[np.float32], rate: int) -> str:
    file = io.BytesIO()
    soundfile.write(file, np.clip(waveform, -1.0, 1.0), rate, format="WAV", subtype="PCM_16")
    return base64.b64encode(file.getvalue()).decode()


def _messages(wav: str | None, turns: Sequence[Turn]) -> list[dict[str, Any]]:
    first, *rest = turns
    audio = [] if wav is None else [{"type": "input_audio", "input_audio": {"data": wav, "format": "wav"}}]
    content = [*audio, {"type": "text", "text": first.text}]
    return [{"role": "user", "content": content}, *({"role": turn.role, "content": turn.text} for turn in rest)]


def _reply(data: bytes) -> Reply:
    """The reply in a response's body. Raises `ClipError` where it is no chat completion."""
    try:
        answer = json.loads(data)
        choice = answer["choices"][0]
        content = choice["message"]["content"]
        if isinstance(content, list):  # some servers give parts
            content = "".join(part.get("text", "") for part in content)
        usage = answer.get("usage") or {}
        return Reply(
            str(content or ""),
            int(usage.get("prompt_tokens") or 0),
            int(usage.get("completion_tokens") or 0),
            choice.get("finish_reason") == "length",
            str(answer.get("model") or ""),
        )
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        start = data[:80].decode(errors="replace")
        raise ClipError(f"the server's answer is no chat completion ({error!r}); it begins with {start!r}") from error


def _models(data: bytes) -> list[dict[str, Any]]:
    """The entries of a list of models. Raises `ClipError` where it is none."""
    try:
        return [entry for entry in json.loads(data)["data"] if isinstance(entry, dict)]
    except (ValueError, LookupError, TypeError) as error:
        raise ClipError("the server's list of models is none") from error
