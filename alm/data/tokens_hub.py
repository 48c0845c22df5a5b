"""Token stores on the Hub: a data set repository that holds a store's folder, without the machine's paths."""

import json
import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download

from alm.data.example import DataError
from alm.data.tokens_files import read_description, read_failures, write_atomic, write_failures
from alm.data.tokens_format import FAILURES, PARTS, SHARDS, STORE, Source
from alm.data.tokens_tables import read_sources, write_sources
from alm.publishing.hub import push, require_login

_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")


def local_folder(path: str | Path) -> Path:
    """A store's folder; of OWNER/NAME, where there is no such folder, the Hub's copy of it (downloaded once).

    Raises `DataError` where the Hub does not give it.
    """
    if Path(path).exists() or not _REPOSITORY.fullmatch(str(path)):
        return Path(path)
    try:
        return Path(snapshot_download(str(path), repo_type="dataset"))
    except (OSError, ValueError) as error:  # no network, no such repository: huggingface_hub's errors are of these
        reason = str(error).splitlines()[0]
        raise DataError(f"{path}: not a token store here, and the Hub does not give one ({reason})") from error


def export_store(store: Path, target: Path) -> int:
    """Copy a finished store to the new folder `target` for others: shards as they are, names without this machine's paths.

    Names become relative to the deepest folder that all audio shares; where that is a folder above the user's home, or the root, they
    are left out: audio is found by its content all the same. Returns how many names were kept. Raises `DataError` where `store` is not
    a finished store.
    """
    description = read_description(store)
    if (store / PARTS).exists():
        raise DataError(
            f"{store}: its build is not finished; run recipes/tokenize_corpus.py again with the same arguments"
        )
    shutil.copytree(store / SHARDS, target / SHARDS)
    table = description["sources"]
    rows = list(read_sources(store / table)) if table else []
    failures = read_failures(store / FAILURES)
    root = _shared_folder(store, [row.path for row in rows] + [failure.path for failure in failures])
    # time and size are of this machine's files: 0 means that a file of this name is hashed before it is believed
    kept = [Source(_public(row.path, store, root), row.size, 0, row.key) for row in rows]
    kept = [row for row in kept if row.path]
    failed = [failure._replace(path=_public(failure.path, store, root)) for failure in failures]
    write_failures(target / FAILURES, [failure for failure in failed if failure.path])
    sources = write_sources(target, kept) if kept else ""
    codec = description["codec"]
    public = {**description, "codec": Path(codec).name if Path(codec).exists() or Path(codec).is_absolute() else codec}
    write_atomic(target / STORE, (json.dumps({**public, "sources": sources}, indent=2) + "\n").encode())
    write_atomic(target / "README.md", _card(public).encode())
    return len(kept)


def push_store(store: Path, repo: str, private: bool = False) -> str:
    """Upload a store to the data set repository `repo` in one commit; returns the commit. Raises `DataError` where the Hub refuses."""
    require_login(repo)
    with tempfile.TemporaryDirectory(dir=store.parent, prefix=".export-") as folder:
        export_store(store, Path(folder) / "store")
        message = f"Token store of codec {read_description(store)['contract']['codec_fingerprint']}"
        stale = [f"{SHARDS}/*", "sources-*.arrow", FAILURES]
        return push(Path(folder) / "store", repo, private, None, message, repo_type="dataset", replaced=stale)


def _shared_folder(store: Path, names: list[str]) -> Path | None:
    """The deepest folder above all local audio; None where its name would tell of the machine."""
    folders = {os.path.normpath((store.absolute() / name).parent) for name in names if "://" not in name}
    if not folders:
        return None
    shared = Path(os.path.commonpath(folders))
    return None if shared in (Path(shared.anchor), *Path.home().parents) else shared


def _public(name: str, store: Path, root: Path | None) -> str:
    if "://" in name:
        return name
    return os.path.relpath(store / name, root) if root is not None else ""


def _card(description: dict[str, Any]) -> str:
    contract = description["contract"]
    lines = [f"- {name}: {value}" for name, value in contract.items()]
    hours = description["seconds"] / 3600
    return "\n".join(
        [
            "---\ntags:\n- audio\n- audio-tokens\n---\n\n# Audio tokens\n",
            f"Codes of {description['clips']:,} clips ({hours:.2f} hours), made with the codec {description['codec']}:\n",
            *lines,
            '\nRead with `TokenStore.open("OWNER/NAME")` of Entangle-ALM, which finds a clip by its audio\'s content, or as Arrow',
            "files: `shards/`, columns `key` (first 32 hexadecimal digits of the SHA-256 of the audio file), `codes` (frame by",
            "frame), `num_frames`, `seconds`.\n",
        ]
    )
