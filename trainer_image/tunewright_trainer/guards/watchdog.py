"""A process that waits for ever ends by itself, and says at what, before the collective's own timeout aborts it.

NCCL's timeout aborts the process without a word, gloo's names a socket. This thread knows the phase of the loop and the
Python operation in which the main thread stands.
"""

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import TypeVar, overload

from tunewright_api.names import ExitCode
from tunewright_trainer import log
from tunewright_trainer.errors import StageError
from tunewright_trainer.processes import Processes, collective_timeout
from tunewright_trainer.rundir import RunDirectory

SHARE = 0.8
"""Of the collective timeout: we must come first."""

SLOWEST = 5
"""A phase may take this many times as long as the longest one so far, whatever the timeout."""

TIMED = frozenset({"smoke", "batch", "agree", "step", "evaluate"})
"""Phases whose length is bounded: all processes wait for each other."""

BUSY = frozenset({"setup"})
"""Phases of any length: who loads a large model and gets on uses its CPU. Saving is in neither: it waits for disks,
which are slow rather than hung."""

BUSY_SHARE = 0.01
"""Of the limit: CPU time that shows that a process gets on. The threads of gloo use a fifth of it while all wait."""

_OURS = Path(__file__).resolve().parents[1]

T = TypeVar("T")


class Watchdog:
    """Measures how long the loop stays in one phase, or at one micro batch of it, or does without the CPU.

    Args:
        rank: Of this process.
        limit: Seconds.
        on_hang: Told what happened; ends the process.
        clock: Seconds (injected in tests).
        cpu: CPU seconds that this process used so far (injected in tests).
    """

    def __init__(
        self,
        rank: int,
        limit: float,
        on_hang: Callable[[StageError], None],
        clock: Callable[[], float] = time.monotonic,
        cpu: Callable[[], float] = time.process_time,
    ) -> None:
        self._rank, self._limit, self._on_hang, self._clock, self._cpu = rank, limit, on_hang, clock, cpu
        self._main = threading.get_ident()
        self._at = ("start", 0, clock())
        self._longest = 0.0
        self._busy = (cpu(), clock())
        self._stopped = threading.Event()

    def start(self) -> None:
        """Begin to watch the thread that made this object."""
        threading.Thread(target=self._run, name="watchdog", daemon=True).start()

    def stop(self) -> None:
        """End the thread."""
        self._stopped.set()

    def enter(self, phase: str, step: int) -> None:
        """The loop begins a phase of the step after `step` steps."""
        before, _, since = self._at
        now = self._clock()
        if before in TIMED:
            self._longest = max(self._longest, now - since)
        self._at = (phase, step, now)

    def follow(self, micro_batches: Sequence[T]) -> Sequence[T]:
        """The same micro batches; each one that is taken shows that the step goes on."""
        return _Followed(micro_batches, lambda: self.enter(self._at[0], self._at[1]))

    def check(self) -> StageError | None:
        """What to say if the process hangs."""
        phase, step, since = self._at
        now, used = self._clock(), self._cpu()
        if used - self._busy[0] >= BUSY_SHARE * self._limit:
            self._busy = (used, now)
        if phase in TIMED:
            waited, allowed = now - since, max(self._limit, SLOWEST * self._longest)
        elif phase in BUSY:
            waited, allowed = now - max(since, self._busy[1]), self._limit
        else:
            return None
        if waited < allowed:
            return None
        return StageError(
            ExitCode.PEER_LOST,
            f"rank {self._rank} stood still for {waited:.0f} s in phase {phase} of step {step + 1}, at "
            f"{operation(sys._current_frames().get(self._main))}: look for the rank that stands elsewhere, or raise "
            "TUNEWRIGHT_COLLECTIVE_TIMEOUT if a micro batch really takes so long",
            self._rank,
        )

    def _run(self) -> None:
        while not self._stopped.wait(min(1.0, self._limit / 10)):
            if hang := self.check():
                self._on_hang(hang)
                return


def start_watchdog(processes: Processes, run_directory: RunDirectory) -> Watchdog:
    """Watch this process if it has others to wait for; when it hangs, its last words are left and it ends."""

    def end(hang: StageError) -> None:
        log.LOGGER.error(hang.message)
        run_directory.write_error(processes.rank, hang)
        sys.stdout.flush()
        os._exit(int(hang.code))

    watchdog = Watchdog(processes.rank, SHARE * collective_timeout(), end)
    if processes.world_size > 1:
        watchdog.start()
    return watchdog


def operation(frame: FrameType | None) -> str:
    """Where a thread stands: the innermost function, and the line of ours that called it."""
    if frame is None:
        return "an unknown place"
    name, inner = frame.f_code.co_name, frame
    caller: FrameType | None = frame
    while caller is not None:
        path = Path(caller.f_code.co_filename)
        if "distributed" in path.parts and not caller.f_code.co_name.startswith(("wrapper", "_")):
            name = caller.f_code.co_name
        if path.is_relative_to(_OURS):
            return f"{name} ({path.relative_to(_OURS.parent)}:{caller.f_lineno})"
        caller = caller.f_back
    return f"{name} ({inner.f_code.co_filename}:{inner.f_lineno})"


class _Followed(Sequence[T]):
    def __init__(self, items: Sequence[T], tell: Callable[[], None]) -> None:
        self._items, self._tell = items, tell

    def __len__(self) -> int:
        return len(self._items)

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[T]: ...
    def __getitem__(self, index: int | slice) -> T | Sequence[T]:
        self._tell()
        return self._items[index]

    def __iter__(self) -> Iterator[T]:
        for item in self._items:
            self._tell()
            yield item
