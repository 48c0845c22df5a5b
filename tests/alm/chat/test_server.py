"""Requests over a real connection: what is tried again, what stops the run, and that the key is never shown."""

import json
import socket
import time
from typing import Any

import numpy as np
import pytest

from alm.chat.backend import BackendError, ClipError, Turn
from alm.chat.server import Server
from alm.chat.transport import Http

WAVE = np.linspace(-2.0, 2.0, 1_600).astype(np.float32)
ASKED = [Turn("user", "What is it?")]


def backend(server: Any, **more: Any) -> Server:
    return Server(Http(server.address, **{"base_delay": 0.001, "attempts": 3, **more}), "tiny", 0.5, 64)


def test_a_request_is_a_chat_completion_with_the_clip(chat_server: Any) -> None:
    asked = [*ASKED, Turn("assistant", "A dog."), Turn("user", "Again.")]
    reply = backend(chat_server, key="sk-1").ask(WAVE, asked)
    assert "number" in reply.text and (reply.prompt_tokens, reply.answer_tokens, reply.cut) == (300, 100, False)
    (request,) = chat_server.requests
    assert request.path == "/v1/chat/completions" and request.headers["Authorization"] == "Bearer sk-1"
    assert {name: request.body[name] for name in ("model", "temperature", "max_tokens", "modalities")} == {
        **{"model": "tiny", "temperature": 0.5, "max_tokens": 64, "modalities": ["text"]}
    }
    messages = request.body["messages"]
    assert messages[0]["content"][1] == {"type": "text", "text": "What is it?"}
    assert messages[1:] == [{"role": "assistant", "content": "A dog."}, {"role": "user", "content": "Again."}]
    samples, rate = request.audio
    assert rate == 16_000 and np.abs(samples - np.clip(WAVE, -1, 1)).max() < 1e-4  # 16 bits, no wrap-around


def test_parts_empty_replies_and_cut_replies_are_understood(chat_server: Any) -> None:
    choices: list[dict[str, Any]] = [
        {"message": {"content": [{"type": "text", "text": "a "}, {"type": "text", "text": "dog"}]}},
        {"message": {"content": None}, "finish_reason": "length"},
    ]
    chat_server.behave = lambda request: (200, {}, json.dumps({"choices": [choices[request.number - 1]]}).encode())
    server = backend(chat_server)
    assert server.ask(WAVE, ASKED)[0] == "a dog" and server.ask(WAVE, ASKED)[:4] == ("", 0, 0, True)


@pytest.mark.parametrize("trouble", [(429, {"Retry-After": "0.01"}, b""), (503, {}, b"loading"), (500, {}, b""), None])
def test_passing_trouble_is_sat_out(chat_server: Any, trouble: Any) -> None:
    chat_server.behave = lambda request: trouble if request.number < 3 else request.good
    assert "number" in backend(chat_server).ask(WAVE, ASKED).text
    assert len(chat_server.requests) == 3


def test_the_wait_grows_and_retry_after_is_heeded(chat_server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    headers = [{}, {}, {"Retry-After": "7"}, {"Retry-After": "9999"}, {"Retry-After": "Wed, 21 Oct"}, {}]
    chat_server.behave = lambda request: (429, headers[request.number - 1], b"") if request.number < 6 else request.good
    server = backend(chat_server, attempts=6, base_delay=1.0)
    monkeypatch.setattr(server.http.stopped, "wait", waits.append)
    server.ask(WAVE, ASKED)
    assert 0.5 <= waits[0] <= 1 <= waits[1] <= 2 and waits[2:4] == [7.0, 60.0] and 8 <= waits[4] <= 16


@pytest.mark.parametrize(
    ("answer", "error", "message", "requests"),
    [
        ((400, {}, b'{"error": "audio\n too long"}'), ClipError, r'400: {"error": "audio too long"}', 1),
        ((413, {}, b""), ClipError, "413: no reason given", 1),
        ((500, {}, b"boom"), ClipError, r"500: boom \(3 attempts\)", 3),
        (None, ClipError, r"connection broke .*\(3 attempts\)", 3),
        ((200, {}, b"<html>hello"), ClipError, "no chat completion .*<html>hello", 1),
        ((200, {}, b'{"choices": []}'), ClipError, "no chat completion", 1),
        ((401, {}, b""), BackendError, "401: .*key is missing or wrong .*--api_key_env", 1),
        ((403, {}, b""), BackendError, "may not use this model", 1),
        ((404, {}, b"no model"), BackendError, "404: no model; no such model, or no such address", 1),
        ((308, {"Location": "https://new/v1"}, b""), BackendError, "redirects to 'https://new/v1'", 1),
        ((302, {"Location": "/elsewhere"}, b""), BackendError, "redirects to '/elsewhere'", 1),
        ((429, {}, b""), BackendError, "rate limit stays", 3),
    ],
)
def test_what_does_not_pass(chat_server: Any, answer: Any, error: type, message: str, requests: int) -> None:
    chat_server.behave = lambda request: answer
    with pytest.raises(error, match=message):
        backend(chat_server).ask(WAVE, ASKED)
    assert len(chat_server.requests) == requests


def test_a_refused_connection_is_a_wrong_address_until_the_server_has_answered(chat_server: Any) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nobody = Http(f"http://127.0.0.1:{free.getsockname()[1]}/v1", attempts=3, base_delay=10.0)
    with pytest.raises(BackendError, match=r"cannot be reached .*is the server running"):
        Server(nobody, "tiny").ask(WAVE, ASKED)  # at once
    server = backend(chat_server)
    server.ask(WAVE, ASKED)
    chat_server.close()
    with pytest.raises(BackendError, match=r"cannot be reached .*\(3 attempts\)"):
        server.ask(WAVE, ASKED)


def test_time_limits(chat_server: Any) -> None:
    chat_server.delay = 0.4
    with pytest.raises(ClipError, match=r"no answer within 0.05 s \(--timeout\) \(2 attempts\)"):
        backend(chat_server, timeout=0.05, attempts=2).ask(WAVE, ASKED)


def test_stop_ends_a_wait(chat_server: Any) -> None:
    chat_server.behave = lambda request: (503, {}, b"")
    server = backend(chat_server, base_delay=30.0)
    server.stop()
    began = time.monotonic()
    with pytest.raises(BackendError, match="stopped"):
        server.ask(WAVE, ASKED)
    assert time.monotonic() - began < 5


def test_the_key_is_never_shown(chat_server: Any) -> None:
    key = "sk-secret-0123456789"
    chat_server.behave = lambda request: (401, {}, f"wrong key: {request.headers['Authorization']}".encode())
    server = backend(chat_server, key=key + "\n")
    with pytest.raises(BackendError, match=r"wrong key: Bearer \[key\]") as caught:
        server.ask(WAVE, ASKED)
    assert key not in f"{caught.value!r} {server!r} {server.settings}"
    assert not server.http.key_in_the_open and Http("http://example.org/v1", key).key_in_the_open
    for bad in ("sk a", "clé"):
        with pytest.raises(BackendError, match="white space or characters") as caught:
            Http("http://localhost/v1", bad)
        assert bad not in str(caught.value)


@pytest.mark.parametrize(
    "address", ["localhost:8000", "ftp://x/v1", "http://me:sk-1@host/v1", "http://host/v1?key=sk-1"]
)
def test_addresses_are_checked_and_their_secrets_not_repeated(address: str) -> None:
    with pytest.raises(BackendError, match="address") as caught:
        Http(address)
    assert "sk-1" not in str(caught.value)


def test_a_question_without_a_clip_is_text_alone(chat_server: Any) -> None:
    backend(chat_server).ask(None, ASKED)
    (request,) = chat_server.requests
    assert request.body["messages"] == [{"role": "user", "content": [{"type": "text", "text": "What is it?"}]}]


def test_what_a_server_tells_of_its_model(chat_server: Any) -> None:
    entry = {"id": "tiny", "created": 5, "owned_by": "me", "max_model_len": 64, "permission": [{"id": "random"}]}
    for models, told in (
        (None, {}),
        ([], {}),
        ({"data": [{"id": "other"}]}, {}),
        ({"data": [{"id": "other"}, entry]}, {"id": "tiny", "owned_by": "me", "max_model_len": 64}),
    ):
        chat_server.models = models
        assert backend(chat_server).described() == told
    chat_server.close()
    with pytest.raises(BackendError, match="cannot be reached"):
        backend(chat_server).described()
