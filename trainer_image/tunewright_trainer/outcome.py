"""How a stage ends: the termination message for the kubelet and the exit code."""

import os
from pathlib import Path

from tunewright_api.results import Outcome, StageResult
from tunewright_trainer.errors import StageError

TERMINATION_LOG_ENV = "TERMINATION_LOG_PATH"
TERMINATION_LOG = "/dev/termination-log"


def failure(error: StageError) -> StageResult:
    """The termination message of a failed stage."""
    return StageResult(outcome=Outcome.FAILED, reason=error.code.reason, message=error.message, rank=error.rank)


def write_termination_message(result: StageResult) -> None:
    """Leave the result where the kubelet reads it; outside a pod (no such file) only the log has it."""
    path = Path(os.environ.get(TERMINATION_LOG_ENV, TERMINATION_LOG))
    try:
        path.write_text(result.to_message(), encoding="utf-8")
    except OSError:
        # Outside a pod /dev/termination-log cannot be created; the exit code still tells the truth.
        return
