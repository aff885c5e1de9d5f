"""The termination message: the last words of the container, which the operator shows in status."""

import logging
import os
from collections.abc import Mapping
from pathlib import Path

from tunewright_api.results import Outcome, StageResult
from tunewright_server.failures import ServerError

DEFAULT_PATH = "/dev/termination-log"
PATH_VARIABLE = "TERMINATION_LOG_PATH"

log = logging.getLogger(__name__)


def failed(failure: ServerError) -> StageResult:
    """The result of a server that had to stop."""
    return StageResult(outcome=Outcome.FAILED, reason=failure.code.reason, message=failure.message)


def succeeded(message: str) -> StageResult:
    """The result of a server that was asked to stop and did."""
    return StageResult(outcome=Outcome.SUCCEEDED, message=message)


def write(result: StageResult, environment: Mapping[str, str] = os.environ) -> None:
    """Write the result to the termination log.

    The kubelet creates the default file. Where it is absent this is no container, and creating
    it would leave a file in /dev; a path that was asked for is created.
    """
    path = Path(environment.get(PATH_VARIABLE) or DEFAULT_PATH)
    if PATH_VARIABLE not in environment and not path.exists():
        return
    try:
        path.write_text(result.to_message(), encoding="utf-8")
    except OSError as error:
        log.warning("the termination log %s cannot be written: %s", path, error)
