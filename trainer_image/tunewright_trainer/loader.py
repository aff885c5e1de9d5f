"""The micro batches of each step, made ahead of time in a thread of their own.

Optimizer step s consumes the positions [s x G, (s + 1) x G) of the run, G records in the global batch. They go round
in micro batches: first one to each process, then the next one to each. So the records of a step are the same whatever
number of processes shares it.
"""

import queue
import threading
import time
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from tunewright_trainer.objectives.objective import Batch

AHEAD = 2
"""Steps that are ready before they are needed."""

_POLL = 0.1


class BatchSource(Protocol):
    """The data of a run by position; made from nothing but the position, so that a resumed run reads the same."""

    def batch(self, positions: range) -> Batch:
        """The records at these positions as one micro batch on the CPU; called from one thread only."""
        ...


@dataclass(frozen=True)
class Share:
    """Which positions a process reads.

    Attributes:
        rank: Position among the processes that read different records.
        size: Number of them.
        micro_batch: Records of a micro batch.
        accumulation: Micro batches per process and step.
    """

    rank: int
    size: int
    micro_batch: int
    accumulation: int

    def positions(self, step: int) -> list[range]:
        """The micro batches of the step after `step` steps."""
        first = step * self.micro_batch * self.accumulation * self.size
        starts = (first + (turn * self.size + self.rank) * self.micro_batch for turn in range(self.accumulation))
        return [range(start, start + self.micro_batch) for start in starts]


class Loader:
    """Makes the micro batches of steps [first, last) in order, AHEAD steps before they are taken."""

    def __init__(self, source: BatchSource, share: Share, device: torch.device, first: int, last: int) -> None:
        self._source, self._share, self._device = source, share, device
        self._steps = range(first, last)
        self._ready: queue.Queue[list[Batch] | BaseException] = queue.Queue(maxsize=AHEAD)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._fill, name="loader", daemon=True)
        self._thread.start()

    def take(self) -> tuple[list[Batch], float]:
        """The micro batches of the next step on the device, and the seconds waited for them.

        Raises:
            Exception: What making them raised.
        """
        started = time.perf_counter()
        ready = self._ready.get()
        waited = time.perf_counter() - started
        if isinstance(ready, BaseException):
            raise ready
        return ready, waited

    def close(self) -> None:
        """End the thread."""
        self._closed.set()
        self._thread.join()

    def _fill(self) -> None:
        try:
            for step in self._steps:
                batches = [self._source.batch(positions) for positions in self._share.positions(step)]
                if not self._put([to_device(batch, self._device) for batch in batches]):
                    return
        except BaseException as error:
            self._put(error)

    def _put(self, item: list[Batch] | BaseException) -> bool:
        """False when the loader was closed meanwhile."""
        while not self._closed.is_set():
            try:
                self._ready.put(item, timeout=_POLL)
                return True
            except queue.Full:
                continue
        return False


def to_device(batch: Batch, device: torch.device) -> Batch:
    """On the device: to a GPU from page-locked memory, while it computes; on a CPU the batch itself."""
    if device.type == "cpu":
        return batch

    def send(tensor: Tensor) -> Tensor:
        return tensor.pin_memory().to(device, non_blocking=True)

    return replace(
        batch,
        inputs={name: send(v) if isinstance(v, Tensor) else v for name, v in batch.inputs.items()},
        labels=send(batch.labels),
        extra={name: send(tensor) for name, tensor in batch.extra.items()},
    )
