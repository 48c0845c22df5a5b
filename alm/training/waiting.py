"""Waiting for the process that prepares the data, as long as that takes: --ddp_timeout is for what processes exchange in training."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from torch import distributed

LONGEST = timedelta(days=30)


@contextmanager
def main_process_first(ranks: Any) -> Iterator[None]:
    """The main process goes through the block first, and the others when it has left it; `ranks` is accelerate's `PartialState`.

    As accelerate's own, but the wait has a group of its own and so no timeout. A main process that dies ends the wait of the others.
    """
    if ranks.num_processes == 1:
        yield
        return
    # made by all before the work: a group is only there when all have come. gloo on GPUs too: NCCL's wait would occupy them
    group = distributed.new_group(backend="gloo", timeout=LONGEST)
    if not ranks.is_main_process:
        distributed.barrier(group=group)
    yield
    if ranks.is_main_process:
        distributed.barrier(group=group)
    distributed.destroy_process_group(group)
