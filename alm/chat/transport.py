"""Requests to a JSON API, with time limits, exponential back-off and errors that say what to do; the key is never shown."""

import http.client
import json
import random
import ssl
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from email.message import Message
from typing import Any, TypeVar

from alm.chat.backend import BackendError, ClipError

Answer = TypeVar("Answer")
MAX_DELAY = 60.0
"""Seconds; neither our back-off nor a server's Retry-After waits longer at a time."""
LOST = (http.client.HTTPException, ConnectionError, TimeoutError, ssl.SSLError)
"""A connection that was there and broke."""


class _RetryError(Exception):
    """A failure that may pass. `fatal`: where it does not, other clips will meet it too."""

    def __init__(self, reason: str, fatal: bool, delay: float = 0.0) -> None:
        super().__init__(reason)
        self.fatal, self.delay = fatal, delay


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """urllib would repeat a POST as a GET, and send the key along to another host."""

    def redirect_request(self, *args: Any) -> None:
        return None


@dataclass
class Http:
    """Requests to `base` (…/v1). Proxies are taken from the environment, as urllib does. `timeout` and `base_delay` in seconds.

    Status 408, 409, 425, 429 and 5xx, time-outs and broken connections are tried again, `attempts` times in all, after
    `base_delay`, 2 ×, 4 ×, … (half to once of it, at random; Retry-After where the server sends one). Raises `BackendError` for an
    address that is none, a key with white space in it, and as `post` says.
    """

    base: str
    key: str | None = field(default=None, repr=False)
    timeout: float = 120.0
    attempts: int = 6
    base_delay: float = 1.0
    stopped: threading.Event = field(default_factory=threading.Event, repr=False)
    answered: bool = False
    """Whether this server has ever answered, a refusal included: until then a refused connection is a wrong address."""

    def __post_init__(self) -> None:
        parts = urllib.parse.urlsplit(self.base)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise BackendError(f"server {self.base!r}: an address such as http://localhost:8000/v1 is expected")
        if parts.username is not None or parts.query:
            raise BackendError(
                "the server's address holds a user name, password or query; a key goes into an environment variable"
            )
        self.key = (self.key or "").strip() or None
        if self.key and not (self.key.isascii() and self.key.isprintable() and " " not in self.key):
            raise BackendError("the API key holds white space or characters that no key has; set the variable again")
        self.base = self.base.rstrip("/")
        self._opener = urllib.request.build_opener(_NoRedirect())

    @property
    def key_in_the_open(self) -> bool:
        """Whether the key travels unencrypted to another machine."""
        parts = urllib.parse.urlsplit(self.base)
        return bool(self.key) and parts.scheme == "http" and parts.hostname not in ("localhost", "127.0.0.1", "::1")

    def post(self, path: str, body: dict[str, Any], read: Callable[[bytes], Answer]) -> Answer:
        """Send `body`, give the response's bytes to `read`.

        Raises `ClipError` where the server refuses this very request (400, 413, 422, …), fails on it each time (5xx, time-outs)
        or `read` does; `BackendError` for what no other request would survive: a wrong address (refused, unknown name, 404,
        redirect), a wrong key (401, 403, 402 without credit), a server that is gone or whose rate limit stays.
        """
        return self._ask(path, json.dumps(body).encode(), read)

    def get(self, path: str, read: Callable[[bytes], Answer]) -> Answer:
        """Give the bytes at `path` to `read`. Raises as `post`."""
        return self._ask(path, None, read)

    def _ask(self, path: str, data: bytes | None, read: Callable[[bytes], Answer]) -> Answer:
        for attempt in range(1, self.attempts + 1):
            if self.stopped.is_set():
                raise BackendError("stopped")
            try:
                content = self._send(path, data)
                self.answered = True
                return read(content)
            except _RetryError as failure:
                if attempt == self.attempts:
                    kind = BackendError if failure.fatal else ClipError
                    raise kind(f"{failure} ({attempt} attempts)") from failure
                backoff = min(MAX_DELAY, self.base_delay * 2 ** (attempt - 1)) * random.uniform(0.5, 1.0)
                self.stopped.wait(min(MAX_DELAY, failure.delay) or backoff)
        raise AssertionError("attempts is at least 1")

    def _send(self, path: str, data: bytes | None) -> bytes:
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        request = urllib.request.Request(f"{self.base}/{path}", data, headers, method="GET" if data is None else "POST")
        try:
            with self._opener.open(request, timeout=self.timeout) as response:
                content: bytes = response.read()
                return content
        except urllib.error.HTTPError as error:
            with error:
                raise self._refusal(error.code, error.headers, error) from None
        except urllib.error.URLError as error:  # before the connection stood, or while the request was sent
            raise self._unreachable(error.reason) from None
        except LOST as error:
            raise self._lost(error) from None

    def _lost(self, error: BaseException) -> _RetryError:
        if isinstance(error, TimeoutError):
            return _RetryError(f"no answer within {self.timeout:g} s (--timeout)", fatal=False)
        return _RetryError(f"the connection broke ({type(error).__name__}: {error})", fatal=False)

    def _unreachable(self, reason: Any) -> Exception:
        if isinstance(reason, LOST) and not isinstance(reason, ConnectionRefusedError | ssl.SSLCertVerificationError):
            return self._lost(reason)
        message = f"{self.base} cannot be reached ({reason}); is the server running, and is the address right?"
        return _RetryError(message, fatal=True) if self.answered else BackendError(message)

    def _refusal(self, status: int, headers: Message, body: Any) -> Exception:
        self.answered = True
        said = f"the server answered {status}: {self._excerpt(body)}"
        if status == 429:
            return _RetryError(
                f"{said}; its rate limit stays: fewer requests at a time, or go on later", True, _retry_after(headers)
            )
        if status in (408, 409, 425) or status >= 500:
            return _RetryError(said, fatal=False, delay=_retry_after(headers))
        cure = {
            401: "the key is missing or wrong (--api_key_env names the variable that holds it)",
            402: "the account has no credit",
            403: "the key may not use this model",
            404: f"no such model, or no such address: {self.base}/chat/completions is what was asked; an address often ends in /v1",
            405: f"{self.base} is no OpenAI-compatible address; it often ends in /v1",
        }.get(status)
        if 300 <= status < 400:
            cure = f"it redirects to {headers.get('Location')!r}: give that address"
        return BackendError(f"{said}; {cure}") if cure else ClipError(said)

    def _excerpt(self, body: Any) -> str:
        """The beginning of an error's text on one line, with the key, should it be in it, struck out."""
        try:
            text = body.read(4096).decode(errors="replace")
        except (OSError, http.client.HTTPException):
            text = ""
        if self.key:
            text = text.replace(self.key, "[key]")
        return " ".join(text.split())[:300] or "no reason given"


def _retry_after(headers: Message) -> float:
    """Seconds of a Retry-After header in its form of a number; 0 for none."""
    try:
        return max(0.0, float(headers.get("Retry-After") or 0))
    except ValueError:
        return 0.0
