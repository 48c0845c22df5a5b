"""Any model behind an OpenAI-compatible server that takes audio: vLLM, llama.cpp, a paid service, …"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cached_property
from typing import Any
from urllib.parse import urlsplit

from alm.chat.backend import ClipError, Turn
from alm.chat.server import Server
from alm.scoring.systems.base import GeneratedText, Refused, Request
from codec.audio import AudioError, read_audio


class ServerSystem:
    """A `Server` behind `alm.scoring.systems.base.System`; the requests of a batch are under way together.

    What the server does to a clip (resampling, a window) it does not tell. It scores no given answers: the protocol has no such
    request.
    """

    def __init__(self, server: Server) -> None:
        self.server, self.label = server, server.model

    @cached_property
    def identity(self) -> dict[str, Any]:
        """Host, name, form of the request, and what the server tells of the model: not its weights, which it may exchange."""
        return {
            "server": urlsplit(self.server.http.base).netloc,
            "server_model": self.server.model,
            "server_tells": self.server.described(),
            "temperature": self.server.temperature,
            "audio": f"mono, 16-bit WAV at {self.server.sampling_rate} Hz",
        }

    def answer(self, batch: Sequence[Request], max_new_tokens: int) -> list[GeneratedText | Refused]:
        """Answers at temperature 0. Raises `BackendError` where the server is gone or takes no request of ours."""
        server = replace(self.server, max_new_tokens=max_new_tokens)
        with ThreadPoolExecutor(max(1, len(batch))) as pool:
            try:
                return list(pool.map(lambda request: _answer(server, request), batch))
            except BaseException:  # Ctrl-C too: nobody waits for the others' further attempts
                server.stop()
                raise


def _answer(server: Server, request: Request) -> GeneratedText | Refused:
    try:
        waveform = None if request.audio is None else read_audio(request.audio, server.sampling_rate)
        reply = server.ask(waveform, [Turn("user", request.text)])
    except (AudioError, ClipError) as error:
        return Refused(f"{request.audio}: {error}")
    return GeneratedText(reply.text, not reply.cut, reply.prompt_tokens or None)
