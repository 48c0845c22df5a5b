"""A store on the Hub: what leaves the machine, and what comes back; the Hub is a folder that records."""

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError, RepositoryNotFoundError

from alm.data.example import DataError
from alm.data.tokens import TokenStore
from alm.data.tokens_build import build_token_store
from alm.data.tokens_hub import export_store, push_store
from codec.audio import write_audio

ToyCodec = Any  # tests/conftest.py


class Hub:
    """Stands for `HfApi` and `snapshot_download`."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.calls = folder, []  # type: ignore[var-annotated]

    def __call__(self) -> "Hub":
        return self

    def whoami(self) -> None:
        self.calls.append(("whoami", {}))

    def create_repo(self, repo: str, **named: Any) -> None:
        self.calls.append(("create_repo", {"repo": repo, **named}))

    def upload_folder(self, *, folder_path: Path, **named: Any) -> Any:
        self.calls.append(("upload_folder", named))
        shutil.copytree(folder_path, self.folder)
        return SimpleNamespace(oid="c0ffee")

    def snapshot_download(self, repo: str, repo_type: str) -> str:
        assert (repo, repo_type) == ("someone/tokens", "dataset")
        return str(self.folder)


@pytest.fixture
def store(tmp_path: Path, toy_codec: ToyCodec) -> Path:
    audio = tmp_path / "anna's disk" / "corpus"
    for index in range(5):
        samples = np.random.default_rng(index).uniform(-0.5, 0.5, 1_000 * (index + 1))
        write_audio(audio / f"sub{index % 2}" / f"{index}.wav", samples, 24_000)
    (audio / "bad.wav").write_bytes(b"no audio")
    paths = sorted(audio.rglob("*.wav"))
    store = tmp_path / "here" / "tokens"
    build_token_store(paths, toy_codec, store, codec_name=str(tmp_path / "codec"), max_missing=0.5, progress=False)
    return store


def test_a_store_goes_to_the_hub_and_comes_back(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = Hub(tmp_path / "remote")
    monkeypatch.setattr("alm.publishing.hub.HfApi", hub)
    monkeypatch.setattr("alm.data.tokens_hub.snapshot_download", hub.snapshot_download)
    assert push_store(store, "someone/tokens", private=True) == "c0ffee"
    assert [name for name, _ in hub.calls] == ["whoami", "create_repo", "upload_folder"]
    repo = {"repo": "someone/tokens", "private": True, "repo_type": "dataset", "exist_ok": True}
    assert hub.calls[1][1] == repo and hub.calls[2][1]["repo_type"] == "dataset"
    assert {path.name for path in store.parent.iterdir()} == {"tokens"}, "the copy is gone"
    for path in filter(Path.is_file, hub.folder.rglob("*")):
        for word in (b"anna", str(tmp_path).encode(), b"here", b"../"):
            assert word not in path.read_bytes(), path

    ours, theirs = TokenStore.open(store), TokenStore.open("someone/tokens", "toy-codec-0001")
    assert theirs.verify() == [] and list(theirs.keys()) == list(ours.keys())
    assert [row.path for row in theirs.sources()] == [f"sub0/{i}.wav" for i in (0, 2, 4)] + ["sub1/1.wav", "sub1/3.wav"]
    corpus = tmp_path / "anna's disk" / "corpus"
    assert np.array_equal(theirs.codes(corpus / "sub1/3.wav"), ours.codes(corpus / "sub1/3.wav"))
    assert np.array_equal(theirs.codes("sub1/3.wav"), ours.codes(corpus / "sub1/3.wav")), "by name, without the audio"
    assert [(failure.path, failure.reason[:17]) for failure in theirs.failures()] == [("bad.wav", "not an audio file")]
    assert theirs.contract["codec"] == "codec"
    assert "Codes of 5 clips" in (hub.folder / "README.md").read_text()


def test_names_that_would_tell_of_the_machine_are_left_out(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "anna's disk" / "corpus" / "anna")
    assert export_store(store, tmp_path / "export") == 0
    exported = TokenStore.open(tmp_path / "export")
    assert len(exported) == 5 and list(exported.sources()) == exported.failures() == [] and exported.verify() == []
    corpus = tmp_path / "anna's disk" / "corpus"
    assert np.array_equal(exported.codes(corpus / "sub1/3.wav"), TokenStore.open(store).codes(corpus / "sub1/3.wav"))


def test_an_unfinished_store_stays_here(store: Path, tmp_path: Path) -> None:
    (store / "parts").mkdir()
    with pytest.raises(DataError, match="its build is not finished"):
        export_store(store, tmp_path / "export")


@pytest.mark.parametrize("error", [LocalEntryNotFoundError("offline"), OSError("no route"), RepositoryNotFoundError])
def test_what_the_hub_does_not_give_is_explained(error: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        response: Any = SimpleNamespace(status_code=404, headers={}, request=None)
        raise error("404", response=response) if isinstance(error, type) else error

    monkeypatch.setattr("alm.data.tokens_hub.snapshot_download", refuse)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="someone/none: not a token store here, and the Hub does not give one"):
        TokenStore.open("someone/none")
    with pytest.raises(DataError, match="not a token store"):
        TokenStore.open("a/folder/that/is/not/there")


def test_the_hub_is_asked_as_it_expects() -> None:
    import inspect

    import huggingface_hub

    assert {"repo_id", "repo_type"} <= set(inspect.signature(huggingface_hub.snapshot_download).parameters)
