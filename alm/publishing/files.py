"""What a published folder holds, named file by file: nothing that is not listed here leaves the machine.

Weights are safetensors only; optimizer states, pickles, logs and stray files of the run's folder are never looked at.
"""

import json
import re
import shutil
from pathlib import Path
from typing import Any

from alm.checkpoint_files import INDEX
from alm.data.example import DataError
from alm.processing import CODEC_FOLDER
from codec.zoo import BASELINES

Files = dict[str, Path | str]
"""Name in the published folder → the file to copy, or the text to write."""

CARD, MANIFEST, WEIGHTS = "README.md", "manifest.json", "model.safetensors"
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "special_tokens_map.json")
MODEL = ("config.json", "generation_config.json", "processor_config.json", *TOKENIZER)
CODEC = ("config.json", "preprocessor_config.json")
ADAPTER = ("adapter_model.safetensors", "processor_config.json", *TOKENIZER)
ORIGINS = ("_name_or_path", "name_or_path")
"""Keys under which Transformers' versions keep the folder that something was once loaded from."""
HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")
ABSOLUTE = re.compile(r"(?:^|[\s\"'`(=,])(?:(?:/[\w.~-]+){2,}|~/|file://|[A-Za-z]:\\)")


def model_files(folder: Path, codec_id: str | None) -> Files:
    """A checkpoint's files; with `codec_id` its processor names that codec and `codec/` stays behind.

    Raises `DataError` where the weights are there twice, or the processor names a codec that only this machine has.
    """
    files = {**_present(folder, MODEL), **_weights(folder)}
    processor = json.loads((folder / "processor_config.json").read_text(encoding="utf-8"))
    reference = processor.get("codec_reference")
    if codec_id is not None:
        files["processor_config.json"] = as_json({**processor, "codec_reference": codec_id})
    elif reference == CODEC_FOLDER:
        files |= {f"{CODEC_FOLDER}/{name}": file for name, file in codec_files(folder / CODEC_FOLDER).items()}
    elif reference not in BASELINES and not is_hub_id(reference):
        raise DataError(
            f"{folder} names the codec {reference}, which only this machine has; give --codec_id OWNER/NAME"
        )
    return files


def codec_files(folder: Path) -> Files:
    """A codec's files, without the parts that only its training needs."""
    return {**_present(folder, CODEC), **_weights(folder)}


def adapter_files(folder: Path, base_model: str) -> Files:
    """A LoRA adapter's files, its configuration naming the base by its Hub id."""
    config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    named = {**config, "base_model_name_or_path": base_model}
    return {**_present(folder, ADAPTER), "adapter_config.json": as_json(named)}


def is_hub_id(name: str | None) -> bool:
    """Whether `name` has the form owner/name and is not a folder here."""
    return name is not None and HUB_ID.fullmatch(name) is not None and not Path(name).exists()


def write(files: Files, folder: Path) -> None:
    """Write the published folder; what was in its place is gone."""
    shutil.rmtree(folder, ignore_errors=True)
    for name, content in files.items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, str):
            target.write_text(content, encoding="utf-8")
        else:
            shutil.copyfile(content, target)  # not copy: the run's permissions (0600 of safetensors) are no one's wish


def listing(files: Files) -> str:
    """Names and sizes, largest first, and their sum."""
    sizes = {name: len(c.encode()) if isinstance(c, str) else c.stat().st_size for name, c in files.items()}
    lines = [f"{size:>16,}  {name}" for name, size in sorted(sizes.items(), key=lambda entry: -entry[1])]
    return "\n".join([*lines, f"{sum(sizes.values()):>16,}  bytes in {len(sizes)} files"])


def require_no_paths(files: Files) -> None:
    """Raise `DataError` where a text file tells where things lay on the machine that made it.

    The tokenizer is left out: a vocabulary has tokens that look like paths.
    """
    for name, content in files.items():
        if Path(name).suffix not in (".json", ".md") or name == "tokenizer.json":
            continue
        text = content if isinstance(content, str) else content.read_text(encoding="utf-8")
        if found := ABSOLUTE.search(text):
            line = text[: found.end()].rpartition("\n")[2] + text[found.end() :].partition("\n")[0]
            raise DataError(f"{name} would publish a path of this machine: {line.strip()[:120]}. Remove it there first")


def as_json(data: Any) -> str:
    """JSON as Transformers writes its files."""
    return json.dumps(data, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def _present(folder: Path, names: tuple[str, ...]) -> Files:
    return {name: _without_origin(folder / name) for name in names if (folder / name).is_file()}


def _without_origin(file: Path) -> Path | str:
    """The file, or its text without the place it was loaded from where it tells that."""
    if file.suffix != ".json" or file.name == "tokenizer.json":
        return file
    data = json.loads(file.read_text(encoding="utf-8"))
    known = [key for key in ORIGINS if key in data]
    return as_json({key: value for key, value in data.items() if key not in known}) if known else file


def _weights(folder: Path) -> Files:
    """The safetensors that Transformers would load: those of the index, or the one file."""
    single, index = folder / WEIGHTS, folder / INDEX
    if single.is_file() and index.is_file():
        raise DataError(f"{folder} holds its weights twice, as {WEIGHTS} and as {INDEX}; remove the stale ones")
    if not single.is_file() and not index.is_file():
        raise DataError(
            f"{folder} holds no {WEIGHTS}; save it again with save_pretrained: only safetensors are published"
        )
    if single.is_file():
        return {WEIGHTS: single}
    shards = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    return {INDEX: index, **{name: folder / name for name in shards}}
