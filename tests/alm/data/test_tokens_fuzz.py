"""Whatever bytes a corpus holds, and whatever its files are called: no crash, every file is in the store or listed with a reason."""

import io
import os
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from alm.data.audio_files import find_audio
from alm.data.audio_groups import find_groups
from alm.data.example import DataError
from alm.data.tokens import TokenStore
from alm.data.tokens_build import build_token_store
from alm.data.tokens_format import content_key
from codec.audio import AUDIO_SUFFIXES

ToyCodec = Any  # tests/conftest.py


def audio(
    form: str, rate: int = 24_000, channels: int = 1, samples: int = 3_000, seed: int = 0, **kwargs: Any
) -> bytes:
    noise = np.random.default_rng(seed).uniform(-0.5, 0.5, (samples, channels))
    file = io.BytesIO()
    soundfile.write(file, noise, rate, format=form, **kwargs)
    return file.getvalue()


def floats(values: list[float]) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, np.array(values * 100), 24_000, format="WAV", subtype="FLOAT")
    return file.getvalue()


FORMS = {"wav": "WAV", "flac": "FLAC", "ogg": "OGG", "mp3": "MP3"}
WHOLE = {suffix: audio(form) for suffix, form in FORMS.items()}


def tokenise(folder: Path, codec: ToyCodec, output: Path) -> tuple[TokenStore, dict[str, str]]:
    """Build, and check that every file is either in the store or listed; returns the store and the reasons by name."""
    paths = find_audio([folder]).paths
    build_token_store(paths, codec, output, max_missing=1.0, progress=False)
    store = TokenStore.open(output)
    reasons = {Path(failure.path).name: failure.reason for failure in store.failures()}
    listed = {failure.path for failure in store.failures()}
    known = {source.path for source in store.sources()}
    assert not listed & known and len(listed | known) == len(paths) and store.verify() == []
    assert all(reason and str(folder) not in reason for reason in reasons.values())
    return store, reasons


def damage(data: bytes, kind: str, rng: random.Random) -> bytes:
    """A file as disks, networks and people leave it."""
    cut = rng.randrange(len(data))
    if kind == "truncated":
        return data[:cut]
    if kind == "header":
        return bytes(rng.randrange(256) for _ in range(min(64, cut + 1))) + data[min(64, cut + 1) :]
    if kind == "bits":
        changed = bytearray(data)
        for _ in range(rng.randrange(1, 30)):
            changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        return bytes(changed)
    if kind == "header bits":
        changed = bytearray(data)
        changed[rng.randrange(min(80, len(data)))] = rng.randrange(256)
        return bytes(changed)
    if kind == "zeros":
        return data[:cut] + bytes(len(data) - cut)
    if kind == "doubled":
        return data + data[cut:]
    return bytes(rng.randrange(256) for _ in range(cut))  # noise


KINDS = ["truncated", "header", "bits", "header bits", "zeros", "doubled", "noise"]


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])  # the fixture is a class
@given(st.integers(0, 1 << 32))
def test_damaged_files_are_read_or_listed(
    tmp_path_factory: pytest.TempPathFactory, make_toy_codec: type[ToyCodec], seed: int
) -> None:
    root, rng = tmp_path_factory.mktemp("fuzz"), random.Random(seed)
    (root / "audio").mkdir()
    for index in range(28):
        suffix = rng.choice(list(FORMS))
        data = damage(WHOLE[suffix], KINDS[index % len(KINDS)], rng)
        (root / "audio" / f"{index}.{rng.choice([suffix, suffix, 'wav', 'mp3'])}").write_bytes(data)
    for suffix, data in WHOLE.items():
        (root / "audio" / f"whole.{suffix}").write_bytes(data)
    store, reasons = tokenise(root / "audio", make_toy_codec(), root / "tokens")
    assert all(content_key(data) in store for data in WHOLE.values()) and not any("whole" in name for name in reasons)


def test_what_is_wrong_is_said(tmp_path: Path, toy_codec: ToyCodec) -> None:
    wav = WHOLE["wav"]
    bad: dict[str, tuple[bytes, str]] = {
        "nothing.wav": (b"", "an empty file"),
        "text.mp3": (b"<html>404 Not Found</html>", "not an audio file"),
        "cut.wav": (wav[:-100], "cut short"),
        "cut.flac": (WHOLE["flac"][:-200], "damaged or cut short"),
        "header alone.wav": (wav[:44], "cut short"),
        "no samples.wav": (audio("WAV", samples=0), "holds no samples"),
        "nan.wav": (floats([0.1, float("nan")]), "100 of 200 samples are NaN or infinite"),
        "inf.wav": (floats([0.1, 0.2, float("-inf")]), "100 of 300 samples are NaN or infinite"),
        "pointer.wav": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS pointer"),
    }
    good: dict[str, bytes] = {
        **{f"wrong name of {suffix}.aiff": data for suffix, data in WHOLE.items()},
        "one sample.wav": audio("WAV", samples=1),
        "one sample at 384 kHz.wav": audio("WAV", rate=384_000, samples=1),
        "twelve channels.wav": audio("WAV", channels=12),
        "eight channels.flac": audio("FLAC", channels=8),
        "silence.wav": floats([0.0]),
        "loud.wav": floats([30.0, -30.0]),
        "eight bits.wav": audio("WAV", subtype="PCM_U8"),
        "doubles.wav": audio("WAV", subtype="DOUBLE"),
        **{f"{rate}.wav": audio("WAV", rate=rate) for rate in (4_000, 11_025, 44_100, 96_000, 192_000, 384_000)},
        **{f"{rate}.mp3": audio("MP3", rate=rate, samples=9_000) for rate in (8_000, 16_000, 48_000)},
        **{f"{rate}.ogg": audio("OGG", rate=rate) for rate in (8_000, 48_000)},
    }
    folder = tmp_path / "audio"
    folder.mkdir()
    for name, content in {**{name: data for name, (data, _) in bad.items()}, **good}.items():
        (folder / name).write_bytes(content)
    (folder / "a folder.wav").mkdir()
    (folder / "dangling.wav").symlink_to(folder / "gone")
    (folder / "forbidden.wav").write_bytes(wav[:-2] + b"xy")
    (folder / "forbidden.wav").chmod(0 if os.geteuid() else 0o600)  # root may read everything
    store, reasons = tokenise(folder, toy_codec, tmp_path / "tokens")
    expected = {**{name: text for name, (_, text) in bad.items()}, "dangling.wav": "No such file"}
    for name, text in expected.items():
        assert text in reasons[name], (name, reasons[name])
    assert set(reasons) - {"forbidden.wav"} == set(expected)
    assert all(content_key(content) in store for content in good.values())
    assert store.codes(folder / "one sample.wav").shape == (1, 1)
    assert store.codes(folder / "one sample at 384 kHz.wav").shape == (1, 1)


ODD_NAMES = [
    "-dash.wav",
    "--output.wav",
    "trailing blank .wav",
    " leading blank.wav",
    "double  space.wav",
    "tab\there.wav",
    "new\nline.wav",
    "Zürich 東京 naïve 😀.wav",
    "Zu\u0308rich.wav",  # the same in another normal form
    "line\u2028separator\x85.wav",
    "#hash.wav",
    "quote\"'`$(x).wav",
    "semi;colon,comma.wav",
    "percent%20.wav",
    "row.parquet::3.wav",
    "back\\slash.wav",
    ".wav.wav",
    "a" * 240 + ".wav",
]


def test_every_name_survives(tmp_path: Path, toy_codec: ToyCodec, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [name for name in ODD_NAMES if not name.startswith(".")]
    for folder in ("plain", "-odd  folder "):
        (tmp_path / folder).mkdir()
        for index, name in enumerate(names):
            (tmp_path / folder / name).write_bytes(audio("WAV", samples=1_000 + index))
    found = find_groups([str(tmp_path / "plain"), str(tmp_path / "-odd  folder ")])
    assert found.clips == 2 * len(names)
    build_token_store(found.groups, toy_codec, tmp_path / "tokens", progress=False)
    store = TokenStore.open(tmp_path / "tokens")
    assert {row.path for row in store.sources()} == {
        f"../{f}/{name}" for f in ("plain", "-odd  folder ") for name in names
    }
    monkeypatch.setattr("alm.data.tokens.content_key", lambda _: pytest.fail("hashed: the name was not known"))
    for folder in ("plain", "-odd  folder "):
        monkeypatch.chdir(tmp_path / folder)
        for index, name in enumerate(names):
            expected = toy_codec._encode_one(np.zeros(1_000 + index, np.float32)).shape
            assert store.codes(name).shape == store.codes_of({"path": str(tmp_path / folder / name)}).shape == expected


@pytest.mark.skipif(sys.platform != "linux", reason="names of bytes that are not UTF-8 are Linux's")
def test_names_that_are_no_text_survive_too(tmp_path: Path, toy_codec: ToyCodec) -> None:
    folder = tmp_path / "audio"
    folder.mkdir()
    name = os.fsdecode(b"caf\xe9.wav")
    (folder / name).write_bytes(audio("WAV"))
    (folder / os.fsdecode(b"bad\xff.wav")).write_bytes(b"no audio")
    build_token_store(find_audio([folder]).paths, toy_codec, tmp_path / "tokens", max_missing=0.5, progress=False)
    store = TokenStore.open(tmp_path / "tokens")
    assert [row.path for row in store.sources()] == ["../audio/caf\\xe9.wav"]
    assert [failure.path for failure in store.failures()] == ["../audio/bad\\xff.wav"]
    assert store.codes(folder / name).shape == (1, 7)


def test_lists_keep_names_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [name for name in ODD_NAMES if "\n" not in name and not name.startswith("#")]
    lines: Callable[[str], str] = lambda end: "".join(f"{name}{end}" for name in ["# a comment", "", *names, "  "])  # noqa: E731
    for end in ("\n", "\r\n"):
        (tmp_path / "list.txt").write_bytes(b"\xef\xbb\xbf" + lines(end).encode())
        assert find_audio([tmp_path / "list.txt"]).paths == sorted(map(Path, names))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.txt").write_text(" \n")
    with pytest.raises(DataError, match="no audio file in it"):
        find_audio(["empty.txt"])


def test_every_suffix_of_audio_is_searched(tmp_path: Path) -> None:
    for suffix in AUDIO_SUFFIXES:
        (tmp_path / f"x{suffix.upper()}").write_bytes(b"x")
    assert find_groups([str(tmp_path)]).clips == len(AUDIO_SUFFIXES)
