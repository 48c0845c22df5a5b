"""Real processes whose exchanges time out after two seconds wait longer than that for the first; and not at all for a dead one."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

SCRIPT = """
import sys, time
from datetime import timedelta
from accelerate import PartialState
from torch.distributed.distributed_c10d import _set_pg_timeout
from alm.training.waiting import main_process_first
ranks = PartialState(cpu=True)
assert ranks.num_processes == 2
ranks.wait_for_everyone()
_set_pg_timeout(timedelta(seconds=2))  # not from the start: on a busy machine the processes come further apart than that
with main_process_first(ranks):
    if ranks.is_main_process:
        assert len(sys.argv) == 1, "nothing can be read"
        time.sleep(5)
        open("made", "w").close()
    else:
        open("made").close()
ranks.wait_for_everyone()
ranks.destroy_process_group()
"""


@pytest.mark.slow
@pytest.mark.parametrize("dies", [False, True])
def test_the_wait_outlasts_the_timeout_and_ends_with_the_main_process(tmp_path: Path, dies: bool) -> None:
    (tmp_path / "wait.py").write_text(SCRIPT)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "wait.py"]
    start = time.monotonic()
    paths = os.pathsep.join([str(Path.cwd()), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [*command, *(["dies"] if dies else [])],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert (done.returncode != 0) == dies, done.stderr[-3000:]
    if dies:
        assert "nothing can be read" in done.stderr
        assert time.monotonic() - start < 300
