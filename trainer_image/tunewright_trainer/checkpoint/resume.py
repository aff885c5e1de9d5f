"""Which checkpoint all ranks go on from."""

import os
from pathlib import Path

from tunewright_api.names import ExitCode
from tunewright_trainer.checkpoint import directory
from tunewright_trainer.errors import StageError
from tunewright_trainer.processes import Processes
from tunewright_trainer.timeouts import seconds

CHECKPOINT_TIMEOUT_ENV = "TUNEWRIGHT_CHECKPOINT_TIMEOUT"
CHECKPOINT_TIMEOUT = 120
"""Seconds after which a checkpoint that rank 0 sees must be visible on every node (NFS caches a directory for 60)."""


def agree(root: Path, processes: Processes) -> int | None:
    """The step that rank 0 resumes from, seen by all ranks.

    Raises:
        StageError: INPUT_NOT_READABLE when this rank does not see it in time, or none is whole; PEER_LOST when another
            rank does not see it.
    """
    newest = directory.pass_over(root) if processes.rank == 0 else None
    step = processes.from_first(-1 if newest is None else newest)
    if step < 0:
        return None
    unseen: StageError | None = None
    try:
        directory.wait_for(root, step, seconds(os.environ, CHECKPOINT_TIMEOUT_ENV, CHECKPOINT_TIMEOUT))
    except StageError as error:
        unseen = error
    (blind,) = processes.total([int(unseen is not None)])
    if unseen:
        raise unseen
    if blind:
        raise StageError(
            ExitCode.PEER_LOST,
            f"another process of this run does not see {directory.path_of(root, step)}: look at the pod that "
            f"ended with {ExitCode.INPUT_NOT_READABLE.reason}",
        )
    return step
