"""The loss on the held-out records in the middle of a run, shared by all processes."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import torch

from tunewright_trainer.loader import BatchSource, to_device
from tunewright_trainer.objectives.objective import IGNORED, Batch, Objective
from tunewright_trainer.parallel.strategy import Strategy
from tunewright_trainer.processes import Processes


class Validation:
    """The mean loss over the units of all held-out records.

    Args:
        source: The held-out records; positions [0, records) are each of them once.
        records: How many there are.
        micro_batch: Records per forward pass.
        strategy: Computes; every process makes the same number of forward passes, because a sharded model needs all
            of them for each one.
        objective: What is measured.
        processes: All of them call `loss` together.
    """

    def __init__(
        self,
        source: BatchSource,
        records: int,
        micro_batch: int,
        *,
        strategy: Strategy,
        objective: Objective,
        processes: Processes,
    ) -> None:
        self._source, self._records, self._micro_batch = source, records, micro_batch
        self._strategy, self._objective, self._processes = strategy, objective, processes

    def loss(self, follow: Callable[[Sequence[int]], Sequence[int]] = list) -> float:
        """The same number on all processes; 0 where nothing is counted.

        Args:
            follow: Given the first records of the micro batches; each one that is taken shows that it goes on.
        """
        total, units = 0.0, 0
        for batch in self._batches(follow):
            total += self._strategy.evaluate([to_device(batch, self._processes.device)], self._objective)
            units += batch.units
        copies = self._processes.world_size // self._strategy.data_size
        (counted,) = self._processes.total([units])
        return total * copies / counted if counted else 0.0

    def _batches(self, follow: Callable[[Sequence[int]], Sequence[int]]) -> Iterator[Batch]:
        """What this process reads: every `data_size`-th micro batch; where they run out, one that does not count."""
        stride = self._micro_batch * self._strategy.data_size
        for first in follow(range(0, self._records, stride)):
            start = first + self._strategy.data_rank * self._micro_batch
            if start < self._records:
                yield self._source.batch(range(start, min(start + self._micro_batch, self._records)))
            else:
                yield uncounted(self._source.batch(range(1)))


def uncounted(batch: Batch) -> Batch:
    """The same forward pass, but nothing of it counts."""
    return replace(batch, labels=torch.full_like(batch.labels, IGNORED), units=0, tokens=0, samples=0)
