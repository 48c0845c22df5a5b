"""A real HTTP server that answers as an OpenAI-compatible endpoint with an audio model behind it would."""

import base64
import contextlib
import hashlib
import io
import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import soundfile

Answer = tuple[int, dict[str, str], bytes] | None
"""Status, headers, body; None breaks the connection without an answer."""


def description(tag: str, **changes: Any) -> dict[str, Any]:
    """A good reply about a clip."""
    good = {
        "content": "sound",
        "speaker": f"A calm speaker, number {tag}, talks slowly.",
        "environment": "It is indoors with little reverberation.",
        "music": "There is no music in it.",
        "events": "A door closes at 0.1 seconds on the left",
    }
    return {**good, **changes}


def completion(text: str, **changes: Any) -> Answer:
    """A chat completion that says `text`."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop", **changes}
    usage = {"prompt_tokens": 300, "completion_tokens": 100, "total_tokens": 400}
    return 200, {}, json.dumps({"model": "tiny-hearing-7", "choices": [choice], "usage": usage}).encode()


@dataclass
class Request:
    """What a client sent: the clip's digest ("" without one), the `number` of this request about it (from 1), the parsed body."""

    clip: str
    number: int
    body: dict[str, Any]
    headers: dict[str, str]
    path: str
    audio: Any = None

    @property
    def good(self) -> Answer:
        """A usable reply, a function of the audio alone."""
        return completion(f"Here you are:\n```json\n{json.dumps(description(self.clip[:8]))}\n```")


@dataclass
class ChatServer:
    """Answers with `behave`; counts requests by clip. `models` is what it tells under /models (None: 404)."""

    behave: Callable[[Request], Answer] = lambda request: request.good
    models: Any = None
    delay: float = 0.0
    requests: list[Request] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    at_once: int = 0
    most_at_once: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def start(self) -> "ChatServer":
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                outer.handle(self)

            def do_GET(self) -> None:
                told = outer.models is not None and self.path == "/v1/models"
                outer.send(self, (200, {}, json.dumps(outer.models).encode()) if told else (404, {}, b""))

            def log_message(self, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}/v1"

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def handle(self, handler: BaseHTTPRequestHandler) -> None:
        body = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        first = body["messages"][0]["content"][0]
        data = base64.b64decode(first["input_audio"]["data"]) if first["type"] == "input_audio" else b""
        clip = hashlib.sha256(data).hexdigest() if data else ""
        with self.lock:
            self.counts[clip] += 1
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
            request = Request(clip, self.counts[clip], body, dict(handler.headers), handler.path)
            request.audio = soundfile.read(io.BytesIO(data)) if data else None
            self.requests.append(request)
        time.sleep(self.delay)
        answer = self.behave(request)
        with self.lock:
            self.at_once -= 1
        with contextlib.suppress(OSError):  # the client was killed
            self.send(handler, answer)

    def send(self, handler: BaseHTTPRequestHandler, answer: Answer) -> None:
        if answer is None:
            handler.connection.close()
            return
        status, headers, content = answer
        handler.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(content)
