"""Examines a checkpoint's folder: does everything in it still belong together, and if not, what is the cure.

    python -m alm.doctor CHECKPOINT          (or: alm doctor CHECKPOINT)

It reads configurations, tokenizer and the headers of the weights, so 8B takes as long as 0.6B; with `--weights` the new rows are read too.
`alm.checkpoint.load_checkpoint` runs the same examination before it loads anything.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from safetensors import SafetensorError, safe_open

from alm.adapters import adapter_base, adapter_faults, is_adapter, read_config, weight_faults
from alm.checkpoint_files import EMBEDDING, CheckpointFiles, local_folder
from alm.contract import GROW_AGAIN, RESTORE, Facts, Fault, faults
from alm.processing import CODEC_FOLDER
from alm.vocabulary import AudioVocabulary, ContractError
from codec.zoo import load_codec

FILES = {
    "config.json": "language model",
    "processor_config.json": "processor",
    "tokenizer.json": "tokenizer",
    "generation_config.json": "generation config",
}


class Check(NamedTuple):
    """One thing looked at, and what was found wrong with it."""

    name: str
    faults: list[Fault]


def examine(folder: Path) -> Iterator[Fault]:
    """Every fault of a checkpoint or adapter folder, read from its files; the codec's weights and the rows' values are not read."""
    for check in checks(folder):
        yield from check.faults


def checks(folder: Path) -> Iterator[Check]:
    """All checks in order; those that need what an earlier one found missing are left out."""
    if is_adapter(folder):
        yield from _adapter_checks(folder)
        return
    missing = [
        Fault(
            name,
            f"{folder} holds no {what} ({name} is missing)",
            "give a folder written by recipes/extend_vocabulary.py or a training recipe, or restore the file",
        )
        for name, what in FILES.items()
        if not (folder / name).is_file()
    ]
    yield Check("files", missing)
    if missing:
        return
    files = CheckpointFiles(folder)
    try:
        yield Check("vocabulary contract", list(_stored_faults(files)))
        yield Check("weights", list(_weight_faults(files)))
        if files.vocabulary is not None:
            facts = Facts(files.config, files.generation, files.tokenizer, files.rows)
            yield Check("tokenizer, template, stop tokens, rows, ties", list(faults(facts, files.vocabulary)))
    except (OSError, ValueError, SafetensorError) as error:
        yield Check("reading", [Fault(str(folder), f"cannot be read: {str(error).splitlines()[0]}", RESTORE)])


def codec_check(folder: Path) -> Check:
    """Whether the codec saved with a checkpoint is the one that it was grown for; loads it."""
    files = CheckpointFiles(adapter_base(folder) if is_adapter(folder) else folder)
    reference = files.processor.get("codec_reference")
    if files.vocabulary is None or reference is None:
        cure = "give one at load: load_checkpoint(path, codec=…)"
        return Check("codec", [Fault("codec_reference", "the checkpoint names no codec", cure)])
    try:
        codec = load_codec(files.folder / CODEC_FOLDER if reference == CODEC_FOLDER else reference)
        files.vocabulary.require_codec(codec.fingerprint, f"the codec {reference}")
    except (ValueError, OSError) as error:
        cure = "put the codec that the model was trained with into codec/, or name it in processor_config.json"
        return Check("codec", [Fault("codec_fingerprint", str(error), cure)])
    return Check("codec", [])


def new_rows_check(folder: Path) -> Check:
    """Whether the rows of audio tokens hold finite values of text rows' size, and no padding row could win a softmax."""
    files = CheckpointFiles(folder)
    vocabulary = files.vocabulary
    if vocabulary is None or EMBEDDING not in files.weights:
        return Check("values of new rows", [])
    with safe_open(files.weights[EMBEDDING], "pt") as file:
        rows = file.get_slice(EMBEDDING)
        text = rows[: min(4096, vocabulary.start_id)].float().norm(dim=1)
        new = rows[vocabulary.start_id : vocabulary.end].float()
        padding = rows[vocabulary.end : vocabulary.rows].float().norm(dim=1)
    found = []
    if not bool(new.isfinite().all()):
        found.append(
            Fault("new rows", "values that are not finite", "go back to an earlier checkpoint: training diverged")
        )
    elif new.shape[0] > 1 and bool((new - new[0]).abs().max() == 0):
        found.append(Fault("new rows", "all audio tokens have the same row", GROW_AGAIN))
    if len(padding) and not bool((padding <= 4 * text.max()).all()):
        problem = "rows without a token are larger than any text row: plain sampling could draw them"
        found.append(Fault("padding rows", problem, "generate through alm.generation, which forbids them"))
    return Check("values of new rows", found)


def _adapter_checks(folder: Path) -> Iterator[Check]:
    base = adapter_base(folder)
    yield from (Check(f"base: {name}", found) for name, found in checks(base))
    vocabulary = CheckpointFiles(base).vocabulary
    if vocabulary is not None:
        yield Check("adapter", [*adapter_faults(read_config(folder), vocabulary), *weight_faults(folder, vocabulary)])
        if (folder / "processor_config.json").is_file():
            theirs = CheckpointFiles(folder).processor.get("audio_vocabulary", {}).get("hash")
            cure = "merge the adapter into the base it was trained on"
            other = Fault("audio_vocabulary", f"trained on vocabulary {theirs}, the base has {vocabulary.hash}", cure)
            yield Check("adapter's vocabulary", [] if theirs == vocabulary.hash else [other])


def _stored_faults(files: CheckpointFiles) -> Iterator[Fault]:
    stored = {"config.json": files.config, "processor_config.json": files.processor}
    found = {name: data.get("audio_vocabulary") for name, data in stored.items()}
    for name, entry in found.items():
        if entry is None:
            cure = f"grow it first: recipes/extend_vocabulary.py --model {files.folder}"
            yield Fault(f"{name} audio_vocabulary", "there is no audio vocabulary", cure)
            continue
        try:
            AudioVocabulary.from_dict(entry)
        except ContractError as error:
            yield Fault(f"{name} audio_vocabulary", str(error), RESTORE)
    if None not in found.values() and found["config.json"] != found["processor_config.json"]:
        sides = " and ".join(f"{name} has {(entry or {}).get('hash')}" for name, entry in found.items())
        yield Fault("audio_vocabulary", f"files of two checkpoints in one folder: {sides}", RESTORE)


def _weight_faults(files: CheckpointFiles) -> Iterator[Fault]:
    if EMBEDDING not in files.weights:
        yield Fault(
            EMBEDDING, "no safetensors file has it", "save the model again with save_pretrained: safetensors only"
        )
    gone = sorted(name for name, file in files.index.items() if files.weights.get(name) != files.folder / file)
    if gone:
        yield Fault("model.safetensors.index.json", f"{len(gone)} tensors are not where it says: {gone[0]}, …", RESTORE)


def main(argv: list[str] | None = None) -> int:
    """The command line; returns 1 where there is a fault."""
    about, _, rest = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        prog="alm doctor", description=about, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint", help="folder or Hub id of a checkpoint or of a LoRA adapter")
    parser.add_argument("--weights", action="store_true", help="read the values of the new rows, too")
    parser.add_argument("--no_codec", action="store_true", help="do not load the codec")
    args = parser.parse_args(argv)
    try:
        return _report(local_folder(args.checkpoint), args.weights, not args.no_codec)
    except ContractError as error:
        print(f"✗ {error}")
        return 1


def _report(folder: Path, weights: bool, codec: bool) -> int:
    done = list(checks(folder))
    if not any(check.faults for check in done):
        done += [codec_check(folder)] if codec else []
        done += [new_rows_check(folder)] if weights and not is_adapter(folder) else []
    for name, found in done:
        print(f"{'✗' if found else '✓'} {name}")
        for fault in found:
            print(f"    {fault.field}: {fault.problem}\n      cure: {fault.cure}")
    count = sum(len(check.faults) for check in done)
    print(f"{folder}: {'no fault' if not count else f'{count} fault' + 's' * (count > 1)}")
    return int(count > 0)


if __name__ == "__main__":
    sys.exit(main())
