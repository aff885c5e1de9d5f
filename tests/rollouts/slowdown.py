"""How much slower the machine is than it promises: a process that has to wait for a CPU is not slow itself.

The kernel counts, for each process, how long it ran and how long it was ready to run (proc(5): schedstat). Promises in
seconds hold for a machine that is not overloaded; tests stretch them by this factor.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

EVERY_SECONDS = 0.2
MOST = 3.0


@dataclass
class Slowdown:
    """Samples of one process: (time of the wall clock, seconds it ran, seconds it waited for a CPU)."""

    samples: list[tuple[float, float, float]] = field(default_factory=list)

    def factor(self, since: float, until: float) -> float:
        """(ran + waited) / ran between two times: 1 on an idle machine, 2 where half of the time was waiting.

        At most MOST: a promise that only a slower machine would keep is not kept.
        """
        inside = [one for one in list(self.samples) if since - EVERY_SECONDS <= one[0] <= until + EVERY_SECONDS]
        if len(inside) < 2:
            return 1.0
        (_, ran_before, waited_before), (_, ran, waited) = inside[0], inside[-1]
        return min(MOST, 1 + (waited - waited_before) / max(ran - ran_before, 0.001))

    def _follow(self, pid: int, stop: threading.Event) -> None:
        path = Path(f"/proc/{pid}/schedstat")
        while not stop.wait(EVERY_SECONDS):
            try:
                ran, waited, _ = path.read_text().split()
            except (OSError, ValueError):  # it ended, or the kernel does not count
                return
            self.samples.append((time.time(), int(ran) / 1e9, int(waited) / 1e9))


@contextmanager
def observing(pid: int) -> Iterator[Slowdown]:
    """The slowdown of a process for the time of the block."""
    slowdown, stop = Slowdown(), threading.Event()
    thread = threading.Thread(target=slowdown._follow, args=(pid, stop), name="slowdown", daemon=True)
    thread.start()
    try:
        yield slowdown
    finally:
        stop.set()
        thread.join()
