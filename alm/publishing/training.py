"""What a run's manifest may tell the world, and how the card tells it."""

import json
from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from alm.data.example import DataError
from alm.publishing.files import MANIFEST

LISTS_OF_FILES = ("missing_audio", "unreadable")
TRAINER = (
    *("per_device_train_batch_size", "gradient_accumulation_steps", "max_steps", "num_train_epochs", "max_length"),
    *("learning_rate", "lr_scheduler_type", "warmup_steps", "optim", "weight_decay", "adam_beta1", "adam_beta2"),
    *("max_grad_norm", "packing", "bf16", "fp16", "seed"),
)
"""Of the trainer's two hundred settings those that shape the result; the rest is about the machine, and may name accounts."""
LICENCES = {
    "musicqa": "MIT (huggingface.co/datasets/mu-llama/MusicQA)",
    "clothoaqa": "not stated; the clips are Clotho's (arXiv 2204.09634), from Freesound (arXiv 1910.09387)",
    "compa_r": "not stated in the README of github.com/Sreyan88/GAMA",
}
"""Licence of the published data sets, where a page of their authors could be read."""


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of the run that made `folder`, fit for the public; None where there is none."""
    file = folder / MANIFEST
    return public(json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else None


def require_same(manifest: dict[str, Any] | None, key: str, value: str, folder: Path) -> None:
    """Raise `DataError` where the manifest is of another run than the folder's weights: `key` has another value."""
    found = (manifest or {}).get(key, value)
    if found != value:
        raise DataError(f"{folder / MANIFEST} is of another run: its {key} is {found}, the folder's {value}; remove it")


def public(manifest: dict[str, Any]) -> dict[str, Any]:
    """A manifest without its command line, lists of files as their numbers, every path as its last part."""
    kept = {key: value for key, value in manifest.items() if key != "command"}
    if "trainer" in kept:
        kept["trainer"] = {key: kept["trainer"][key] for key in TRAINER if key in kept["trainer"]}
    cleaned: dict[str, Any] = _cleaned(kept)
    base = manifest.get("base_model") or {}
    if base.get("revision"):  # of the Hub: its name is no path, and says nothing without its owner
        cleaned["base_model"]["name"] = base["name"]
    return cleaned


def describe(manifest: dict[str, Any] | None) -> str:
    """The card's paragraphs on training."""
    if manifest is None:
        return f"Not stated: the folder had no `{MANIFEST}`."
    lines = [f"- {name}: {value}" for name, value in _facts(manifest)]
    tables = [_data_table(manifest["read"], manifest.get("files", {}))] if manifest.get("read") else []
    return "\n\n".join(["\n".join(lines), *tables, f"All settings are in `{MANIFEST}`."])


def _facts(manifest: dict[str, Any]) -> Iterator[tuple[str, str]]:
    trainer, training = manifest.get("trainer", {}), manifest.get("training", {})
    yield "recipe", f"`recipes/{manifest.get('recipe', 'not stated')}`"
    if steps := trainer.get("max_steps"):
        batch = trainer.get("per_device_train_batch_size", 1) * trainer.get("gradient_accumulation_steps", 1)
        yield (
            "steps",
            f"{steps:,}; {batch} rows a step and process" if steps > 0 else f"{trainer['num_train_epochs']:g} epochs",
        )
    if rate := trainer.get("learning_rate"):
        yield "learning rate", f"{rate:g}, {trainer.get('lr_scheduler_type', 'schedule not stated')}"
    if base := manifest.get("base_model"):
        weights = ", ".join(f"`{name}` {digest}" for name, digest in base["weights"].items())
        revision = f" at {base['revision']}" if base["revision"] else ""
        yield "began from", f"`{base['name']}`{revision} ({weights})"
    if "sequences" in manifest:
        sequences = manifest["sequences"]
        yield "tokens in one pass", f"{sequences['tokens']:,}, of which {sequences['labelled']:,} labelled"
    if "data" in manifest:
        yield "digest of the training data", f"`{manifest['data']['digest']}`"
    if "clips" in manifest:
        yield "clips", f"{manifest['clips']:,}"
    if "train_loss" in training:
        yield "mean training loss", f"{training['train_loss']:.3f}"
    if versions := manifest.get("versions"):
        yield "versions", ", ".join(f"{name} {version}" for name, version in versions.items())
    yield "commit", str(manifest.get("commit") or "not stated")


def _data_table(read: list[dict[str, Any]], files: dict[str, str]) -> str:
    lines = ["| data set | rows | examples | dropped | licence of the published set |", "|---|---|---|---|---|"]
    for one in read:
        dropped = ", ".join(f"{count:,} {reason}" for reason, count in one["dropped"].items()) or "none"
        licence = LICENCES.get(one["source"], "not stated")
        lines.append(f"| {one['source']} | {one['rows']:,} | {one['examples']:,} | {dropped} | {licence} |")
    told = ", ".join(f"`{name}` {digest}" for name, digest in files.items())
    note = "A data set's name says which format was read. What was in the files, their SHA-256 (16 digits) says"
    return "\n".join([*lines, "", f"{note}: {told}."]) if files else "\n".join(lines)


def _cleaned(value: Any, key: str = "") -> Any:
    if key in LISTS_OF_FILES and isinstance(value, list):
        return len(value)
    if isinstance(value, dict):
        cleaned: dict[str, Any] = {}
        for k, v in value.items():
            name = _name(str(k))
            same = sum(other.rpartition(" #")[0] == name or other == name for other in cleaned)
            cleaned[f"{name} #{same + 1}" if same else name] = _cleaned(v, str(k))  # two folders' files of one name
        return cleaned
    if isinstance(value, list):
        return [_cleaned(item) for item in value]
    return _name(value) if isinstance(value, str) else value


def _name(text: str) -> str:
    """The last part of a path of either system; any other text as it is."""
    return PureWindowsPath(PurePosixPath(text).name).name if "/" in text or "\\" in text else text
