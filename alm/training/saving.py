"""Folders of a run that are whole or absent, whenever it is killed; and what is said where the disk is full.

What is written stands in `OUTPUT_DIR/.writing/` until every process has written its part of it. Then it is flushed to the disk and
renamed to its place, which a file system does at once or not at all.
"""

import errno
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from alm.data.example import DataError
from alm.data.tokens_files import remove_temporary

ASIDE = ".writing"
STATE = "trainer_state.json"
_REPLACED, _REMOVED = ".replaced", ".removed"
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
# libraries that write past Python tell of a full disk in words alone: safetensors, tokenizers and Arrow in the first, torch in the others
_WORDS = re.compile(rf"No space left|os error ({'|'.join(map(str, _FULL))})\b|unexpected pos|basic_ios|Writer failed")


class SavingError(DataError):
    """The disk is full. Says what was being written and from where the run goes on."""


def checkpoint_name(step: int) -> str:
    """What Transformers' Trainer calls the checkpoint of a step."""
    return f"checkpoint-{step}"


def checkpoints(output: Path) -> list[Path]:
    """Checkpoints of a run that were written to their end, by step."""
    return [folder for folder in _named_checkpoints(output) if is_whole(folder)]


def is_whole(checkpoint: Path) -> bool:
    """Whether a checkpoint has its trainer's state, which is written last."""
    try:
        state = json.loads((checkpoint / STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(state, dict) and "global_step" in state


def put_in_place(new: Path, place: Path) -> None:
    """Rename the folder `new`, of the same file system, to `place` when all of it is on the disk; what stood there is removed after."""
    _flush(new)
    old = _aside(place, _REPLACED)
    if place.exists():
        place.rename(old)
    new.rename(place)
    _flush_one(place.parent)
    _remove(old)


def put_contents_in_place(new: Path, place: Path) -> None:
    """Move what is in the folder `new` into `place`, when all of it is on the disk, over what has the same name there."""
    _flush(new)
    for path in sorted(new.iterdir()):
        if (place / path.name).is_dir():
            discard(place / path.name)
        path.replace(place / path.name)
    _flush_one(place)
    _remove(new)


def discard(folder: Path) -> None:
    """Remove a folder that must not be found half removed."""
    away = _aside(folder, _REMOVED)
    folder.rename(away)
    _remove(away)


def rotate(output: Path, limit: int | None, newest: Path | None = None) -> None:
    """Remove the earliest checkpoints beyond `limit` (None, 0: keep all), never the `newest` (default: the last) nor the best it names."""
    found = checkpoints(output)
    if not found or not limit or limit < 0:
        return
    newest = newest or found[-1]
    best = json.loads((newest / STATE).read_text(encoding="utf-8")).get("best_model_checkpoint")
    keep = {newest.name, Path(best or newest).name}
    spare = [folder for folder in found if folder.name not in keep]
    for folder in spare[: max(0, len(found) - limit)]:
        discard(folder)


def tidy(output: Path) -> None:
    """Remove what a killed run left half written or half removed, and say so; name checkpoints that are not whole: they are passed over."""
    aside = output / ASIDE
    for old in aside.glob(f"*{_REPLACED}"):
        place = output / old.name.removesuffix(_REPLACED)
        if not place.exists():  # killed between the two renames
            old.rename(place)
    for path in sorted(aside.glob("*")):
        if path.suffix not in (_REPLACED, _REMOVED):
            print(f"{output / path.name} was being written when the run ended: what there is of it is removed")
    shutil.rmtree(aside, ignore_errors=True)
    remove_temporary(output)
    for folder in _named_checkpoints(output):
        if not is_whole(folder):
            print(f"{folder} is passed over: it was not written to its end (no {STATE} that can be read)")


@contextmanager
def writing(what: Path | str, output: Path) -> Iterator[None]:
    """Around all that writes `what` for the run in `output`: a full disk is a `SavingError`, and what is half written is removed."""
    try:
        yield
    except Exception as error:
        if isinstance(error, SavingError) or not _is_full(error):
            raise
        usage = shutil.disk_usage(output)  # before anything is removed: what there was room for
        shutil.rmtree(output / ASIDE, ignore_errors=True)
        raise SavingError(
            f"{what} could not be written: the disk is full, or a quota or limit reached ({error}); {_size(usage.free)} of "
            f"{_size(usage.total)} were free. What there was of it is removed. {_way_on(output)}"
        ) from error


def _way_on(output: Path) -> str:
    again = "the same command, without --overwrite_output,"
    found = checkpoints(output)
    if not found:
        return f"There is no whole checkpoint yet: make room, and {again} begins from the first step"
    size = sum(path.stat().st_size for path in found[-1].rglob("*") if path.is_file())
    return (
        f"The last checkpoint, {found[-1]}, is whole: make room (it has {_size(size)}, and the next is written before the oldest is "
        f"removed), and {again} goes on from there"
    )


def _is_full(error: BaseException | None) -> bool:
    """Whether an error, or one that led to it, is that of a full disk."""
    if error is None:
        return False
    if isinstance(error, OSError) and error.errno in _FULL:
        return True
    return _WORDS.search(str(error)) is not None or _is_full(error.__cause__ or error.__context__)


def _named_checkpoints(output: Path) -> list[Path]:
    steps = {int(found[1]): path for path in output.glob("checkpoint-*") if (found := re.search(r"-(\d+)$", path.name))}
    return [steps[step] for step in sorted(steps)]


def _aside(place: Path, suffix: str) -> Path:
    """Where a folder is moved before it is removed; nothing is there."""
    path = place.parent / ASIDE / (place.name + suffix)
    path.parent.mkdir(exist_ok=True)
    shutil.rmtree(path, ignore_errors=True)
    return path


def _remove(folder: Path) -> None:
    """Remove a folder that has been moved aside, and the place aside when nothing else is there."""
    shutil.rmtree(folder, ignore_errors=True)
    with suppress(OSError):
        folder.parent.rmdir()


def _flush(folder: Path) -> None:
    """Wait until all files of a folder, and their names, are on the disk."""
    for path in [*folder.rglob("*"), folder]:
        _flush_one(path)


def _flush_one(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _size(count: int) -> str:
    return f"{count / 2**30:,.2f} GiB" if count >= 2**30 else f"{count / 2**20:,.2f} MiB"
