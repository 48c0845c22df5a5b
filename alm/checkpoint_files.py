"""A checkpoint's files, read one by one without loading the model: configurations, tokenizer, headers of the weights."""

import json
from functools import cached_property
from pathlib import Path
from typing import Any

from safetensors import safe_open
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from alm.vocabulary import AudioVocabulary, ContractError

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
INDEX = "model.safetensors.index.json"


def local_folder(path: str | Path, revision: str | None = None, weights: bool = True) -> Path:
    """The folder of a checkpoint: itself, or the snapshot of a Hub id (`weights=False`: its small files alone).

    Raises `ContractError` where there is neither.
    """
    if Path(path).is_dir():
        return Path(path)
    if str(path).count("/") != 1 or Path(path).is_absolute():
        raise ContractError(f"{path}: no such folder, and not the form of a Hub id (owner/name)")
    from huggingface_hub import snapshot_download

    try:
        kept = ["*.json", "*.jinja", "*.txt", "*.model", *(["*.safetensors"] if weights else [])]
        return Path(snapshot_download(str(path), revision=revision, allow_patterns=kept))
    except Exception as error:  # the Hub's errors have no common class
        reason = str(error).splitlines()[0]
        raise ContractError(f"{path}: no such folder, and from the Hub: {reason}") from error


class CheckpointFiles:
    """A folder's files, each read when first asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @cached_property
    def config(self) -> dict[str, Any]:
        """`config.json`."""
        return self._json("config.json")

    @cached_property
    def generation(self) -> dict[str, Any]:
        """`generation_config.json`."""
        return self._json("generation_config.json")

    @cached_property
    def processor(self) -> dict[str, Any]:
        """`processor_config.json`."""
        return self._json("processor_config.json")

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer, its chat template included."""
        return AutoTokenizer.from_pretrained(self.folder)

    @cached_property
    def vocabulary(self) -> AudioVocabulary | None:
        """The contract in `config.json`; None where there is none, or a broken one."""
        try:
            return AudioVocabulary.from_dict(self.config["audio_vocabulary"])
        except (KeyError, TypeError, ContractError):
            return None

    @cached_property
    def weights(self) -> dict[str, Path]:
        """Which safetensors file holds which tensor."""
        found = {}
        for path in sorted(self.folder.glob("*.safetensors")):
            with safe_open(path, "pt") as file:
                found.update(dict.fromkeys(file.keys(), path))
        return found

    @cached_property
    def rows(self) -> dict[str, int]:
        """Rows of embedding and head from the headers of the weights."""
        found = {}
        for label, name in (("embedding", EMBEDDING), ("output head", HEAD)):
            if name in self.weights:
                with safe_open(self.weights[name], "pt") as file:
                    found[label] = int(file.get_slice(name).get_shape()[0])
        return found

    @cached_property
    def index(self) -> dict[str, str]:
        """Tensor to file as `model.safetensors.index.json` says; empty where all weights are in one file."""
        known = (self.folder / INDEX).is_file()
        return self._json(INDEX)["weight_map"] if known else {}

    def _json(self, name: str) -> dict[str, Any]:
        data = json.loads((self.folder / name).read_text(encoding="utf-8"))
        if not isinstance(data, dict):
            raise ContractError(f"{name} is no JSON object")
        return data
