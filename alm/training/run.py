"""The life of a training run's output folder: started, interrupted and gone on with, finished."""

import hashlib
import json
import shutil
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from alm.arguments import ConfigFileError
from alm.checkpoint_files import local_folder
from alm.data.example import DataError
from alm.data.tokens_files import write_atomic
from alm.scoring.manifest import environment
from alm.training.arguments import MachineArguments
from alm.training.layout import Layout
from alm.training.saving import STATE, checkpoints, discard, is_whole, tidy
from alm.training.training_log import TRAINING_LOG, drop_later
from alm.vocabulary import AudioVocabulary, ContractError

MANIFEST = "manifest.json"
"""Written last: its presence means that the run is finished and the folder a complete checkpoint."""
SEQUENCES = "sequences"
ADAPTER = "adapter"
SAMPLES = "samples"


def begin(output: Path, ranks: Any, overwrite: bool, resume: str = "auto") -> str | None:
    """Make `output`, cleared by one process first where `overwrite` says so; returns the checkpoint to go on from (`starting_point`).

    `ranks` is the `distributed_state` of the training arguments. What a killed run left half written is removed, with a message.
    """
    output.mkdir(parents=True, exist_ok=True)
    if ranks.is_main_process:
        if overwrite:
            clear(output)
        tidy(output)
    ranks.wait_for_everyone()
    return starting_point(output, resume)


def settle_layout(args: MachineArguments, training: Any) -> Layout:
    """The devices of --machine, or of this launch; `--effective_batch` is settled on them (`settle_batch`)."""
    half = bool(training.bf16 or training.fp16)
    layout = Layout.read(args.machine, half) if args.machine else Layout.of(training)
    settle_batch(args.effective_batch, training, layout.processes)
    return layout


def settle_batch(wanted: int | None, training: Any, processes: int | None = None) -> None:
    """Set the accumulation that makes a step `wanted` rows or crops over all processes (None: leave it), where none is given.

    `processes` are those of this launch unless a run elsewhere is planned.
    Raises `ConfigFileError` where the training arguments come to another batch.
    """
    rows, accumulation = training.per_device_train_batch_size, training.gradient_accumulation_steps
    processes = processes or training.world_size
    if wanted is None or rows * accumulation * processes == wanted:
        return
    if accumulation > 1 or wanted % (rows * processes):
        raise ConfigFileError(
            f"--effective_batch {wanted}, but {rows} rows or crops × {accumulation} accumulation × {processes} processes are "
            f"{rows * accumulation * processes}: change --per_device_train_batch_size, --gradient_accumulation_steps or the number of "
            "processes"
        )
    training.gradient_accumulation_steps = wanted // (rows * processes)


def settle_epochs(training: Any, steps: int) -> None:
    """Let the strategies `epoch` of saving and logging mean a pass over the data, which is so many `steps`.

    The trainer itself is given the rows of all passes at once, mixed, and would take the whole run for one epoch.
    """
    for name in ("save", "logging"):
        strategy = getattr(training, f"{name}_strategy")
        if strategy == "epoch":
            setattr(training, f"{name}_strategy", type(strategy)("steps"))
            setattr(training, f"{name}_steps", steps)


def starting_point(output: Path, resume: str) -> str | None:
    """The checkpoint folder to go on from; None to start afresh.

    `resume` is `auto` (the last checkpoint of `output` if there is one), `true` (it must be there) or a folder. Raises `DataError`
    where the run is finished already or the checkpoint is not there.
    """
    if (output / MANIFEST).is_file():
        raise DataError(
            f"{output} holds a finished run ({MANIFEST}); give another --output_dir, or --overwrite_output to train anew"
        )
    if resume.lower() not in ("auto", "true"):
        if not is_whole(Path(resume)):
            raise DataError(f"--resume_from_checkpoint {resume}: no checkpoint ({STATE}) there")
        return resume
    found = checkpoints(output)
    if not found and resume.lower() == "true":
        raise DataError(f"--resume_from_checkpoint: {output} has no checkpoint to go on from")
    return str(found[-1]) if found else None


def require_same_contract(checkpoint: str | None, vocabulary: AudioVocabulary) -> None:
    """Raise `ContractError`, with both hashes, where a run would go on from a checkpoint of another vocabulary contract."""
    if checkpoint is None:
        return
    stored = json.loads((Path(checkpoint) / "processor_config.json").read_text(encoding="utf-8"))
    known = AudioVocabulary.from_dict(stored["audio_vocabulary"])
    if known != vocabulary:
        raise ContractError(
            f"{checkpoint} was trained with vocabulary {known.hash}, --model has {vocabulary.hash}: its rows would mean other tokens. Give "
            "the model that the run began with, or --overwrite_output to train anew"
        )


def is_complete(checkpoint: str | None, max_steps: int) -> bool:
    """Whether a checkpoint has all its steps: the run ended between its last step and its manifest.

    Transformers' Trainer would train one step more from there. `max_steps` as in TrainingArguments: 0 or less counts epochs.
    """
    if checkpoint is None:
        return False
    state = json.loads((Path(checkpoint) / STATE).read_text(encoding="utf-8"))
    return int(state["global_step"]) >= (max_steps if max_steps > 0 else int(state["max_steps"]))


def mend_log(output: Path, checkpoint: str, ranks: Any) -> None:
    """Let the log of a run with nothing left to train lose what was not written to its end, as it does where training goes on."""
    if ranks.is_main_process:
        state = json.loads((Path(checkpoint) / STATE).read_text(encoding="utf-8"))
        drop_later(output / TRAINING_LOG, int(state["global_step"]))


def clear(output: Path) -> None:
    """Remove what an earlier run left: checkpoints, log, sequences, samples, adapter, manifest; weights are overwritten at the end."""
    for checkpoint in output.glob("checkpoint-*"):
        discard(checkpoint)
    # before what it speaks of, and after the checkpoints, which a run without it would go on from
    (output / MANIFEST).unlink(missing_ok=True)
    for name in (SEQUENCES, SAMPLES, ADAPTER):  # an adapter of an earlier run would be taken for this one's
        shutil.rmtree(output / name, ignore_errors=True)
    (output / TRAINING_LOG).unlink(missing_ok=True)


def require_same_data(record: Path, digest: str, going_on: bool, write: bool = True, **settings: Any) -> None:
    """Keep the digest of the training data, and `settings`, in `record`; raise `DataError` where a run would go on with others.

    Where several processes call it, one of them is to `write`; all raise alike, so that none waits for one that is gone.
    """
    ours = {"digest": digest, **json.loads(json.dumps(settings))}
    known = json.loads(record.read_text(encoding="utf-8")) if going_on and record.is_file() else ours
    changed = [f"{name} {value}, then {known.get(name)}" for name, value in ours.items() if value != known.get(name)]
    if changed:
        raise DataError(
            f"the training data differ from those this run began with ({'; '.join(changed)}): data sets, token store or options have "
            "changed. Restore them, or give another --output_dir or --overwrite_output"
        )
    if write:
        write_atomic(record, (json.dumps(ours) + "\n").encode())


def file_digest(path: str | Path) -> str:
    """SHA-256 of a file, 16 hexadecimal digits."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def model_identity(name: str) -> dict[str, Any]:
    """What a folder or Hub id holds now: its `name`, the Hub's `revision` (None for a folder), and each weight file's digest."""
    folder = local_folder(name)
    weights = {file.name: file_digest(file) for file in sorted(folder.glob("*.safetensors"))}
    return {"name": name, "revision": None if Path(name).is_dir() else folder.name, "weights": weights}


def write_manifest(output: Path, parts: Mapping[str, Any], command: list[str]) -> None:
    """Write `manifest.json`, whole or not at all: `parts`, command, versions, commit."""
    around = environment(command)
    around["versions"] |= {name: version(name) for name in ("trl", "accelerate", "datasets")}
    write_atomic(output / MANIFEST, (json.dumps({**parts, **around}, indent=2, default=str) + "\n").encode())
