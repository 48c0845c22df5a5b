"""The page in a real headless browser: Chromium driven by Playwright (`make test-page`)."""

import io
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from alm.checkpoint import LoadedCheckpoint, save_checkpoint
from alm.data.example import DataError
from alm.generation import answer, speak
from alm.vocabulary import ContractError
from codec.audio import write_audio
from codec.base import Codec

pytest.importorskip("gradio")
pytest.importorskip("matplotlib")

from alm.page.__main__ import main
from alm.page.layout import build, readable

FLAGS = [
    *["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"],
    *["--disable-component-update", "--disable-sync"],
    *["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"],  # a microphone that beeps
]
PATIENCE = 60_000  # milliseconds; two loaded cores need a few seconds


@pytest.fixture
def chromium() -> str:
    """The browser's file."""
    names = ("chromium", "chromium-browser", "google-chrome")
    found = os.environ.get("CHROME") or next(filter(None, map(shutil.which, names)), None)
    if found is None:
        pytest.skip("no Chromium: `apt-get install chromium`, or name one in the environment variable CHROME")
    return found


@pytest.fixture
def codec() -> Codec:
    """A random EntangleCodec with a vocoder, as it is saved with a checkpoint."""
    from codec import EntangleCodec, EntangleCodecConfig, EntangleCodecModel

    torch.manual_seed(0)
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    decoder = {f"decoder_{name}": value for name, value in small.items()}
    vocoder = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
    return EntangleCodec(EntangleCodecModel(EntangleCodecConfig(**small, **decoder, codebook_size=64, vocoder=vocoder)))  # type: ignore[arg-type]


@pytest.fixture
def loaded(make_language_model: Callable[..., LoadedCheckpoint], codec: Codec) -> LoadedCheckpoint:
    return make_language_model(codec=codec)


@pytest.fixture
def address(loaded: LoadedCheckpoint, tmp_path: Path) -> Iterator[str]:
    """Where a server of the checkpoint, a process of its own, listens."""
    save_checkpoint(*loaded, tmp_path / "demo")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "alm.page", str(tmp_path / "demo"), "--port", str(port)]
    environment = {**os.environ, "GRADIO_TEMP_DIR": str(tmp_path / "gradio")}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as server:
        assert server.stdout is not None
        try:
            yield next(line.split()[0] for line in server.stdout if "shows the page" in line)
        finally:
            server.terminate()


@pytest.fixture
def page(chromium: str, address: str) -> Iterator[Any]:
    """The page in a browser that reaches nothing but the server; fails where anything else was asked for."""
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=FLAGS)
        tab = browser.new_context(permissions=["microphone"]).new_page()
        tab.set_default_timeout(PATIENCE)
        strangers: list[str] = []
        inside = re.compile(rf"({re.escape(address)}|data:|blob:)")
        tab.route("**", lambda route: route.continue_() if inside.match(route.request.url) else route.abort())
        tab.on("request", lambda request: None if inside.match(request.url) else strangers.append(request.url))
        tab.goto(address)
        yield tab
        browser.close()
    assert not strangers


def download(page: Any, number: int = 0) -> bytes:
    """The bytes behind the visible tab's n-th download button."""
    links = page.locator("a[download]").locator("visible=true")
    links.nth(number).wait_for()
    body: bytes = page.request.get(links.nth(number).get_attribute("href")).body()
    return body


def sound(page: Any, number: int = 0) -> Any:
    """Samples of the n-th download, which the browser itself must be able to decode."""
    data = download(page, number)
    decode = "async bytes => (await new OfflineAudioContext(1, 1, 24000).decodeAudioData(new Uint8Array(bytes).buffer)).duration"
    samples, rate = soundfile.read(io.BytesIO(data), dtype="int16")
    assert rate == 24_000 and page.evaluate(decode, list(data)) == pytest.approx(len(samples) / rate, abs=1e-3)
    return samples


def note(page: Any) -> str:
    """The line about the visible tab's result."""
    text: str = page.get_by_text("computed in").locator("visible=true").inner_text()
    return text


def picture_size(page: Any) -> list[int]:
    image = page.locator("img").locator("visible=true")
    image.wait_for()
    size: list[int] = image.evaluate("async image => (await image.decode(), [image.naturalWidth, image.naturalHeight])")
    return size


def upload(page: Any, clip: Path) -> None:
    page.locator("[role=tabpanel]:visible input[type=file]").set_input_files(clip)
    page.get_by_label("Clear").locator("visible=true").wait_for()  # the clip has arrived


@pytest.mark.slow
def test_every_tab_does_its_work(page: Any, loaded: LoadedCheckpoint, tmp_path: Path) -> None:
    clip = tmp_path / "clip.wav"
    write_audio(clip, 0.3 * np.sin(np.arange(24_100) / 9), 24_000)
    playwright = pytest.importorskip("playwright.sync_api")

    upload(page, clip)
    page.get_by_label("Question").fill("what is heard?")
    page.get_by_role("button", name="Ask", exact=True).click()
    playwright.expect(page.get_by_role("textbox", name="Answer")).to_have_value(
        answer(*loaded, "what is heard?", str(clip), max_new_tokens=64), timeout=PATIENCE
    )
    assert note(page).startswith("clip 1.02 s, 51 tokens")

    page.get_by_role("tab", name="Speak").click()
    page.get_by_role("button", name="Speak", exact=True).click()
    page.get_by_text("the text is empty").wait_for()
    page.get_by_label("Sentence").fill("a dog barks")
    page.get_by_role("button", name="Speak", exact=True).click()
    seconds = float(note(page).split()[0])
    spoken = speak(*loaded, "a dog barks", max_seconds=8.0)
    assert len(sound(page)) == len(spoken.waveform) == round(24_000 * seconds)
    assert picture_size(page) == [1_000, 260]

    page.get_by_role("tab", name="Make a sound").click()
    page.get_by_label("Caption").fill("a bell rings")
    page.get_by_role("button", name="Make the sound").click()
    assert len(sound(page)) == round(24_000 * float(note(page).split()[0]))

    page.get_by_role("tab", name="Codec round trip").click()
    upload(page, clip)
    page.get_by_role("button", name="Encode and decode").click()
    assert note(page).startswith("1.00 s · 51 tokens, 50 a second, 300 bits a second")
    original, made = sound(page, 1), sound(page, 2)  # 0 is the clip as it was uploaded
    np.testing.assert_array_equal(original, soundfile.read(clip, dtype="int16")[0])
    assert len(made) == 51 * 480 and not np.array_equal(made[:24_100], original)
    assert picture_size(page) == [1_000, 520]


@pytest.mark.slow
def test_a_recorded_clip_and_a_file_that_is_none(page: Any, tmp_path: Path) -> None:
    (tmp_path / "words.wav").write_text("these are words")
    upload(page, tmp_path / "words.wav")
    page.get_by_label("Question").fill("what is heard?")
    page.get_by_role("button", name="Ask", exact=True).click()
    page.get_by_text("words.wav: not an audio file").wait_for()
    assert page.get_by_text(str(tmp_path)).count() == 0 and page.get_by_text("Traceback").count() == 0

    page.reload()
    page.get_by_label("Record audio").locator("visible=true").click()
    page.get_by_role("button", name="Record", exact=True).click()
    page.wait_for_timeout(1_000)
    page.get_by_role("button", name="Stop", exact=True).click()
    page.get_by_role("button", name="Download").locator("visible=true").wait_for()  # the recording has arrived
    page.get_by_label("Question").fill("what is heard?")
    page.get_by_role("button", name="Ask", exact=True).click()
    assert 0.5 < float(note(page).split()[1]) < 8


def test_a_users_mistake_is_a_sentence_and_a_bug_is_not() -> None:
    import gradio

    def action(error: Exception | None) -> str:
        if error:
            raise error
        return "done"

    assert readable(action)(None) == "done"
    with pytest.raises(gradio.Error, match="no clip"):
        readable(action)(DataError("no clip"))
    with pytest.raises(KeyError):
        readable(action)(KeyError("x"))


def test_a_folder_that_does_not_hold_together_is_not_served(
    loaded: LoadedCheckpoint, language_model: LoadedCheckpoint, tmp_path: Path
) -> None:
    save_checkpoint(*loaded, tmp_path)
    (tmp_path / "chat_template.jinja").write_text("another")
    with pytest.raises(ContractError, match=r"chat_template_hash[\s\S]*Cure: "):
        main([str(tmp_path)])
    language_model.processor._codec = None
    with pytest.raises(ContractError, match="names no codec"):
        build(language_model, "demo")
