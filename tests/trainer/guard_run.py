"""One of two processes that meet over gloo: `python guard_run.py CASE RANK PORT DIRECTORY`, for tests of the guards."""

import json
import os
import signal
import sys
import time
from pathlib import Path

import torch
import torch.distributed as dist

from tunewright_trainer.errors import StageError
from tunewright_trainer.guards import smoke
from tunewright_trainer.guards.watchdog import Watchdog, start_watchdog
from tunewright_trainer.processes import COLLECTIVE_TIMEOUT_ENV, Processes, join
from tunewright_trainer.rundir import RunDirectory


def main() -> None:
    """Run the case; the exit code is that of the error, as in the worker."""
    case, rank, port, directory = sys.argv[1], int(sys.argv[2]), sys.argv[3], Path(sys.argv[4])
    os.environ.update(RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
    processes, run_directory = join(distributed=True), RunDirectory(directory)
    try:
        globals()[case](processes, run_directory)
        code = 0
    except StageError as error:
        run_directory.write_error(rank, error)
        code = int(error.code)
    sys.stdout.flush()
    os._exit(code)


def hang(processes: Processes, run_directory: RunDirectory) -> None:
    """Rank 1 never comes to the second all-reduce."""
    processes.total([1])
    if processes.rank:
        signal.pause()
    watch(processes, run_directory).enter("agree", 1)
    processes.total([1])


def load(processes: Processes, run_directory: RunDirectory) -> None:
    """Rank 1 hangs while it loads its model; rank 0 has done so, and asks where to resume."""
    if processes.rank:
        signal.pause()
    watch(processes, run_directory).enter("setup", 0)
    processes.total([0])


def watch(processes: Processes, run_directory: RunDirectory) -> Watchdog:
    """A watchdog that waits for seconds, while the group would wait for 10 minutes."""
    os.environ[COLLECTIVE_TIMEOUT_ENV] = "5"
    return start_watchdog(processes, run_directory)


def works(processes: Processes, run_directory: RunDirectory) -> None:
    """Everything arrives as it was sent."""
    seconds = smoke.check_collectives(processes)
    (run_directory.path / f"seconds-{processes.rank}").write_text(json.dumps(seconds))


def garbles(processes: Processes, run_directory: RunDirectory) -> None:
    """What rank 1 sends arrives changed."""
    real = dist.all_reduce

    def broken(tensor: torch.Tensor, **options: object) -> object:
        if processes.rank == 1 and tensor.numel() > 2 and tensor.is_floating_point():
            tensor[1] = 7
        return real(tensor, **options)

    dist.all_reduce = broken
    smoke.check_collectives(processes)


def absent(processes: Processes, run_directory: RunDirectory) -> None:
    """Rank 1 does not come to the test."""
    if processes.rank:
        # It leaves when the other one has said so: a connection that closes is another error.
        end = time.monotonic() + 60
        while not list(run_directory.path.glob("outcome-0")) and time.monotonic() < end:
            time.sleep(0.05)
        return
    smoke.check_collectives(processes, timeout=1.0)


if __name__ == "__main__":
    main()
