"""Where the time goes between the start of a pod's main process and the first optimizer step of its workers."""

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from tunewright_trainer import log

STARTED_ENV = "TUNEWRIGHT_STARTED"
"""When the pod's main process started: seconds since the machine booted, a clock that all processes share."""


def clock() -> float:
    """Seconds since the machine booted."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def process_start() -> float:
    """When this process was started, by the same clock: field 22 of /proc/PID/stat, proc_pid_stat(5)."""
    after_name = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    return int(after_name[19]) / os.sysconf("SC_CLK_TCK")


class Startup:
    """The seconds of each part of the way to the first step, one after the other.

    Parts: `launch` (main process, meeting the other pods, a worker's interpreter), `imports`, `processes` (process
    group and its test), `model` (index of the records, weights), `optimizer` (wrapping the model for the run's
    parallelism, too), `resume` (checkpoint, validation, reference of the objective), `batch` (the first one).
    """

    def __init__(self, started: float, now: Callable[[], float] = clock) -> None:
        self.parts: dict[str, float] = {}
        self._now, self._since = now, started

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "Startup":
        """Counting from the start of the pod's main process, or of this one if it is alone."""
        started = environment.get(STARTED_ENV)
        return cls(process_start() if started is None else float(started))

    def end(self, part: str) -> None:
        """What was done since the part before is this part."""
        now = self._now()
        self.parts[part], self._since = now - self._since, now

    def report(self, tell: Callable[[Mapping[str, float]], None]) -> Callable[[str, int], None]:
        """A hook of phases that ends the last part at the first step, writes all into the log and tells them."""

        def enter(phase: str, _: int) -> None:
            if phase == "step" and "batch" not in self.parts:
                self.end("batch")
                seconds = {part: round(seconds, 2) for part, seconds in self.parts.items()}
                log.info("first step", startupSeconds=round(sum(self.parts.values()), 2), **seconds)
                tell(self.parts)

        return enter
