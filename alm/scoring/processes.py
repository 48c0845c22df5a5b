"""One evaluation over several processes of a launch (`accelerate launch`, torchrun), each with a device of its own.

Batches are cut from the whole benchmark and each is computed by one process, so the rows are those that one process computes alone.
Each process appends its rows to a log of its own; at the end they meet through sockets of the CPU (gloo), whatever the devices are,
and may wait for each other for as long as it takes. A process that dies ends the others, and no row is lost.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from itertools import accumulate, count
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm

from alm.data.example import DataError
from alm.scoring.item_log import ItemLog, Row

Work = TypeVar("Work")


class LostProcessError(ValueError):
    """Another process of the launch has ended before its work was done."""


@dataclass(frozen=True)
class Processes:
    """Process `index` of `number`; without arguments, one alone. All of them make the same calls in the same order.

    `store` counts the batches that are taken, `group` is the one through which rows are exchanged.
    """

    index: int = 0
    number: int = 1
    store: Any = None
    group: Any = None
    _shares: Iterator[int] = field(default_factory=count)

    @property
    def is_main(self) -> bool:
        """Whether this is the process that prints and writes the result."""
        return self.index == 0

    def device(self, name: str) -> str:
        """This process's device: of `cuda` the GPU with its number on the machine.

        Raises `DataError` for a device that is not here, where processes would share a GPU, or there are fewer than processes.
        """
        if name in ("cpu", "auto"):
            return name
        if int(os.environ.get("LOCAL_WORLD_SIZE", self.number)) == 1:
            require_device(name)
            return name
        kind, _, given = name.partition(":")
        if given:
            raise DataError(
                f"--device {name} would put all processes of this machine on one device; give --device {kind}"
            )
        require_device(kind)
        import torch

        own, there = int(os.environ.get("LOCAL_RANK", self.index)), torch.get_device_module(kind).device_count()
        if own >= there:
            raise DataError(
                f"process {own + 1} of this machine finds {there} × {kind}: accelerate launch --num_processes {max(there, 1)}, "
                "or --device cpu"
            )
        return f"{kind}:{own}"

    @contextmanager
    def main_first(self) -> Iterator[None]:
        """The main process goes through the block first, and the others when it has left it."""
        if not self.is_main:
            self._exchange(None)
        yield
        if self.is_main:
            self._exchange(None)

    @contextmanager
    def open_log(
        self, path: Path, key: str, resume: bool, is_done: Callable[[Row], bool] = lambda row: True
    ) -> Iterator[ItemLog]:
        """This process's log of a run, as `ItemLog`; the main one takes over what any number of processes has left.

        Raises `DataError` where processes have different keys.
        """
        if len(keys := set(self._exchange(key))) > 1:
            raise DataError(
                f"the processes differ in model, data, settings or code (keys {', '.join(sorted(keys))}): give all machines the same"
            )
        with self.main_first():
            log = ItemLog(path, key, resume, is_done, part=self.index)
        with log:
            yield log

    def share(self, batches: Sequence[Sequence[Work]], desc: str, unit: str) -> Iterator[Sequence[Work]]:
        """This process's batches. Each is taken when the one before it is done, as devices and batches differ in speed.

        Shows the progress of all on the main process.
        """
        ends = list(accumulate(map(len, batches), initial=0))
        with tqdm(total=ends[-1], desc=desc, unit=unit, disable=not self.is_main) as bar:
            for turn in self._turns(len(batches)):
                yield batches[turn]
                bar.update(ends[turn + 1] - bar.n)
            bar.update(ends[-1] - bar.n)

    def collect(self, log: ItemLog, ids: Sequence[str]) -> None:
        """Wait for all processes and give each the rows of all; the main one writes them to the run's log, in the order of `ids`."""
        if self.number > 1:
            rows: dict[str, Row] = {}
            for some in self._exchange(log.rows):
                rows |= some
            log.complete(rows, ids)

    def _turns(self, batches: int) -> Iterator[int]:
        if self.number == 1:
            yield from range(batches)
            return
        name = f"share {next(self._shares)}"
        while (turn := self._talk(lambda: self.store.add(name, 1)) - 1) < batches:
            yield turn

    def _exchange(self, value: Any) -> list[Any]:
        """Every process's value, when all have come."""
        if self.number == 1:
            return [value]
        from torch import distributed

        values = [None] * self.number
        self._talk(lambda: distributed.all_gather_object(values, value, group=self.group))
        return values

    def _talk(self, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except RuntimeError as error:  # nothing finer is raised: the other's end of the socket is closed
            raise LostProcessError(
                f"process {self.index} of {self.number} has lost another, whose own message tells why. All rows are kept: run again "
                f"with --resume, on any number of processes ({str(error).splitlines()[0]})"
            ) from error


def require_device(name: str) -> None:
    """Raise `DataError` for a device that this installation of torch does not know or find."""
    import torch

    try:
        device = torch.device(name)
        there = torch.get_device_module(device.type).device_count()
    except (RuntimeError, AttributeError) as error:
        raise DataError(f"--device {name}: torch knows no such device; cpu, cuda, cuda:1, …") from error
    if (device.index or 0) >= there:
        raise DataError(
            f"--device {name}: torch {torch.__version__} finds {there} × {device.type} here; --device cpu always works"
        )


@cache
def launched() -> Processes:
    """The processes of this launch, joined at the first call; outside of one, this process alone (and no torch is loaded)."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or "RANK" not in os.environ:
        return Processes()
    from torch import distributed
    from torch.distributed.rendezvous import rendezvous

    from alm.training.waiting import LONGEST

    # not accelerate's state: its backend on GPUs is NCCL, which occupies them while it waits, and gives up after ten minutes
    store, index, number = next(rendezvous("env://"))
    distributed.init_process_group("gloo", store=store, rank=index, world_size=number)
    return Processes(index, number, store, distributed.new_group(backend="gloo", timeout=LONGEST))
