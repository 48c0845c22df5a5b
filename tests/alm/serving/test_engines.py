"""The same greedy ids from every engine that is installed: audio in, audio out, both, neither; and the same under the grammar.

In `make check` the engines run that the `dev` extra brings; `make test-serving` and `make test-vllm` set up environments for the others.
"""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from alm.checkpoint import load_checkpoint
from alm.generation.grammar import AudioGrammar, GrammarLogitsProcessor
from alm.processing import AudioLanguageProcessor
from alm.serving.grammars import ebnf, gbnf
from alm.serving.messages import read_reply
from codec.audio import read_header, write_audio

ROOT = Path(__file__).parents[3]
NEW_TOKENS = 24  # as in conftest, more than the longest reply
BELL_FRAMES = 7  # of the reply to "Ring a bell."
PROMPTS = ["audio to text", "text to audio", "audio to audio", "text to text"]


@dataclass
class Server:
    """A server, called with a path and the fields of a request."""

    url: str

    def __call__(self, path: str, **body: Any) -> Any:
        return _post(f"{self.url}{path}", body)


@contextmanager
def serving(served: Any, engine: str, tmp_path: Path, *flags: str, options: str = "") -> Iterator[Server]:
    """A server started by `alm.serving.launch`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "alm.serving.launch", "--model", str(served.folder), "--engine", engine]
    command += ["--port", str(port), f"--options={options}", *flags]
    # the engine's program stands beside this interpreter
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    log = tmp_path / "server.log"
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment)
    try:
        deadline = time.monotonic() + 180
        while not _answers(f"http://127.0.0.1:{port}/health"):
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()[-3000:]
            time.sleep(0.2)
        yield Server(f"http://127.0.0.1:{port}")
    finally:
        process.terminate()
        process.wait(60)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def _post(url: str, body: dict[str, Any]) -> Any:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        raise AssertionError(f"{error.code}: {error.read().decode()[:2000]}") from error


def documented_client(checkpoint: str, url: str) -> str:
    """The client of docs/serving.md, for a server of ours."""
    (code,) = re.findall("```python\n(.*?)```", (ROOT / "docs/serving.md").read_text(encoding="utf-8"), re.DOTALL)
    code, count = re.subn(
        "^checkpoint, url = .*$", f"checkpoint, url = {checkpoint!r}, '{url}/v1'", code, flags=re.MULTILINE
    )
    assert count == 1
    return str(code)


def shown(served: Any, ids: list[int]) -> str:
    """What a server shows of a reply."""
    return str(served.processor.tokenizer.decode(ids, skip_special_tokens=True))


def same_items(ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> bool:
    return json.dumps(ours, default=np.ndarray.tolist) == json.dumps(theirs, default=np.ndarray.tolist)


def under_grammar(served: Any, grammar: AudioGrammar, ids: list[int]) -> list[int]:
    """Greedy ids of Transformers under the grammar, the stop token left out."""
    model, processor = load_checkpoint(served.folder)
    prompt = torch.tensor([ids])
    made = model.generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        max_new_tokens=NEW_TOKENS,
        do_sample=False,
        logits_processor=[GrammarLogitsProcessor(grammar, processor.tokenizer, len(ids))],
    )[0, len(ids) :].tolist()
    return list(made[: made.index(processor.vocabulary.stop_id)])


def test_the_model_speaks(served: Any) -> None:
    vocabulary = served.processor.vocabulary
    audio = {name: [i for i in ids if i >= vocabulary.first_id] for name, ids in served.replies.items()}
    assert [bool(audio[name]) for name in PROMPTS] == [False, True, True, False]
    assert all(served.replies.values())


@pytest.mark.slow
def test_transformers_serve(served: Any, toy_codec: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("uvicorn")
    pytest.importorskip("openai")
    with serving(served, "transformers", tmp_path, options="--device cpu") as post:
        for name in PROMPTS:
            prompt, ids, vocabulary = served.prompts[name], served.replies[name], served.processor.vocabulary
            settings = {"model": str(served.folder), "temperature": 0, "max_tokens": NEW_TOKENS}
            chat = post("/v1/chat/completions", messages=prompt.messages, **settings)
            assert chat["usage"]["prompt_tokens"] == len(prompt.ids)
            assert chat["usage"]["completion_tokens"] == len(ids) + 1  # its stop token is counted
            plain = post("/v1/completions", prompt=prompt.prompt, **settings)
            assert plain["choices"][0]["text"] == shown(served, ids)
            # this server's chat shows the marks of audio, its completions do not: both are read alike
            marked = served.processor.tokenizer.decode(ids)
            assert chat["choices"][0]["message"]["content"] == marked
            assert same_items(read_reply(plain["choices"][0]["text"], vocabulary), read_reply(marked, vocabulary))
        served.processor.codec = toy_codec
        monkeypatch.setattr(AudioLanguageProcessor, "from_pretrained", lambda _: served.processor)
        monkeypatch.chdir(tmp_path)
        write_audio("clip.wav", np.full(4800, 0.5, dtype=np.float32), 24_000)
        exec(documented_client(str(served.folder), post.url), {})
        assert read_header("reply.wav").frames == BELL_FRAMES * 480


@pytest.mark.slow
def test_ctranslate2(served: Any, tmp_path: Path) -> None:
    ctranslate2 = pytest.importorskip("ctranslate2")
    converter = ctranslate2.converters.TransformersConverter(str(served.folder))
    generator = ctranslate2.Generator(converter.convert(str(tmp_path / "converted")), intra_threads=1)
    tokenizer = served.processor.tokenizer
    for name in PROMPTS:
        tokens = tokenizer.convert_ids_to_tokens(served.prompts[name].ids)
        (result,) = generator.generate_batch(
            [tokens], max_length=NEW_TOKENS, sampling_topk=1, include_prompt_in_result=False, end_token="<|im_end|>"
        )
        assert result.sequences_ids[0] == served.replies[name], name


@pytest.fixture
def gguf_file(served: Any, tmp_path: Path) -> Path:
    pytest.importorskip("gguf")
    from alm.serving.export_gguf import export_gguf, read_contract

    path = tmp_path / "model.gguf"
    assert export_gguf(served.folder, path, "f32") == read_contract(path) == served.processor.vocabulary
    return path


@pytest.mark.slow
def test_llama_cpp(served: Any, gguf_file: Path) -> None:
    llama_cpp = pytest.importorskip("llama_cpp")
    model = llama_cpp.Llama(str(gguf_file), n_ctx=512, n_threads=1, verbose=False)
    vocabulary = served.processor.vocabulary
    for name in PROMPTS:
        prompt, ids = served.prompts[name], served.replies[name]
        assert model.tokenize(prompt.prompt.encode(), add_bos=False, special=True) == prompt.ids
        found: list[int] = []
        for token in model.generate(prompt.ids, temp=0.0):
            if token == vocabulary.stop_id or len(found) == NEW_TOKENS:
                break
            found.append(token)
        assert found == ids, name
        settings = {"max_tokens": NEW_TOKENS, "temperature": 0.0}
        chat = model.create_chat_completion(prompt.messages, **settings)
        assert chat["choices"][0]["message"]["content"] == shown(served, ids)
        grammar = AudioGrammar(vocabulary, min_frames=3, max_frames=4)
        rules = llama_cpp.LlamaGrammar.from_string(gbnf(grammar), verbose=False)
        spoken = model.create_completion(prompt.prompt, grammar=rules, **settings)["choices"][0]["text"]
        assert spoken == shown(served, under_grammar(served, grammar, prompt.ids)), name


@pytest.mark.slow
def test_llama_server(served: Any, gguf_file: Path, tmp_path: Path) -> None:
    if shutil.which("llama-server") is None:
        pytest.skip("llama-server is not on the path")
    vocabulary = served.processor.vocabulary
    grammar = AudioGrammar(vocabulary, min_frames=3, max_frames=4)
    with serving(served, "llama.cpp", tmp_path, "--gguf", str(gguf_file), options="--ctx-size 512 --threads 1") as post:
        for name in PROMPTS:
            prompt, ids = served.prompts[name], served.replies[name]
            settings = {"temperature": 0, "max_tokens": NEW_TOKENS}
            chat = post("/v1/chat/completions", messages=prompt.messages, **settings)
            assert chat["choices"][0]["message"]["content"] == shown(served, ids), name
            spoken = post("/v1/chat/completions", messages=prompt.messages, grammar=gbnf(grammar), **settings)
            expected = shown(served, under_grammar(served, grammar, prompt.ids))
            assert spoken["choices"][0]["message"]["content"] == expected, name


@pytest.mark.slow
def test_vllm(served: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("vllm")
    for name, value in {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}.items():
        monkeypatch.setenv(name, value)
    vocabulary = served.processor.vocabulary
    grammar = AudioGrammar(vocabulary, min_frames=3, max_frames=4)
    xargs = {"audio_spans": 1, "audio_min_seconds": 0.06, "audio_max_seconds": 0.08}
    options = "--dtype float32 --enforce-eager --max-model-len 512 --max-num-seqs 4"
    with serving(served, "vllm", tmp_path, options=options) as post:
        for name in PROMPTS:
            prompt, ids = served.prompts[name], served.replies[name]
            settings = {
                "temperature": 0,
                "max_tokens": NEW_TOKENS,
                "return_token_ids": True,
                "messages": prompt.messages,
            }
            chat = post("/v1/chat/completions", **settings)
            assert chat["prompt_token_ids"] == prompt.ids
            assert chat["choices"][0]["message"]["content"] == shown(served, ids)
            assert _ids(chat, vocabulary.stop_id) == ids, name
            expected = under_grammar(served, grammar, prompt.ids)
            assert _ids(post("/v1/chat/completions", vllm_xargs=xargs, **settings), vocabulary.stop_id) == expected
            structured = {"structured_outputs": {"grammar": ebnf(grammar)}}
            assert _ids(post("/v1/chat/completions", **structured, **settings), vocabulary.stop_id) == expected
        with pytest.raises(AssertionError, match=r"400.*audio_min_second is unknown"):
            post("/v1/chat/completions", vllm_xargs={"audio_min_second": 1}, **settings)


def _ids(chat: Any, stop: int) -> list[int]:
    return [token for token in chat["choices"][0]["token_ids"] if token != stop]
