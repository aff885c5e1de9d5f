"""Which record is trained at each position of a run. Pure, and a function of the position alone: a run that resumes at
a position, or is shared by more processes, sees the same records."""

import random
from collections.abc import Sequence
from itertools import accumulate
from math import gcd
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tunewright_trainer.data.split import DataOrder


class Order(Protocol):
    """The record at each position, without end."""

    def __getitem__(self, position: int) -> int:
        """Number of the record."""
        ...


class MixtureOrder:
    """Records of several parts at fixed shares.

    Positions are cut into periods of sum(weights) (divided by their common divisor); each has exactly weight positions
    of each part, in an order of its own. A part is gone through as by DataOrder: all of it, then again in a new order.

    Args:
        sizes: Records of each part; those of part p follow those of the parts before it.
        weights: Share of each part.
        seed: Of all orders.
    """

    def __init__(self, sizes: Sequence[int], weights: Sequence[int], seed: int) -> None:
        divisor = gcd(*weights)
        self._shares = [weight // divisor for weight in weights]
        self._starts = [0, *accumulate(sizes)]
        self._orders = [DataOrder(size, seed + 1 + part) for part, size in enumerate(sizes)]
        self._seed = seed
        self._period = -1
        self._parts: list[int] = []
        self._turns: list[int] = []

    def __getitem__(self, position: int) -> int:
        period, offset = divmod(position, sum(self._shares))
        if period != self._period:
            self._begin(period)
        part = self._parts[offset]
        return self._starts[part] + self._orders[part][period * self._shares[part] + self._turns[offset]]

    def _begin(self, period: int) -> None:
        self._period = period
        self._parts = [part for part, share in enumerate(self._shares) for _ in range(share)]
        random.Random(f"{self._seed}/mixture/{period}").shuffle(self._parts)
        seen = [0] * len(self._shares)
        self._turns = []
        for part in self._parts:
            self._turns.append(seen[part])
            seen[part] += 1


class LengthGroupedOrder:
    """Another order with records of similar length side by side, so that rows of a micro batch need little padding.

    Within a window of `WINDOW` global batches the records are sorted by length and dealt out batch by batch; the
    batches of a window come in an order of their own. A window holds the records that it held before.

    Args:
        order: The order within which records are exchanged.
        lengths: Tokens of each record.
        global_batch: Records per optimizer step.
        positions: Length of the run, a multiple of global_batch: the last window ends with it.
        seed: Of the order of batches.
    """

    WINDOW = 50

    def __init__(self, order: Order, lengths: NDArray[np.int64], global_batch: int, positions: int, seed: int) -> None:
        self._order, self._lengths, self._batch = order, lengths, global_batch
        self._positions, self._seed = positions, seed
        self._window = -1
        self._records: list[int] = []

    def __getitem__(self, position: int) -> int:
        size = self.WINDOW * self._batch
        window, offset = divmod(position, size)
        if window != self._window:
            end = min((window + 1) * size, max(self._positions, window * size + 1))
            self._begin(window, range(window * size, end))
        return self._records[offset]

    def _begin(self, window: int, positions: range) -> None:
        self._window = window
        records = sorted((self._order[position] for position in positions), key=lambda record: -self._lengths[record])
        batches = [records[start : start + self._batch] for start in range(0, len(records), self._batch)]
        whole, rest = (batches[:-1], batches[-1:]) if len(batches[-1]) < self._batch else (batches, [])
        random.Random(f"{self._seed}/window/{window}").shuffle(whole)
        self._records = [record for batch in (*whole, *rest) for record in batch]


def build_order(
    sources: NDArray[np.int16],
    weights: Sequence[int],
    seed: int,
    *,
    lengths: NDArray[np.int64] | None = None,
    global_batch: int = 1,
    positions: int = 0,
) -> Order:
    """The order of a run.

    Args:
        sources: Part of each record, ascending.
        weights: Share of each part; one for a single dataset.
        seed: hyperparameters.seed.
        lengths: Tokens of each record, to group records by length; None for no grouping.
        global_batch: Records per optimizer step.
        positions: Length of the run.
    """
    order: Order = DataOrder(len(sources), seed)
    if len(weights) > 1:
        order = MixtureOrder(np.bincount(sources, minlength=len(weights)).tolist(), weights, seed)
    if lengths is not None:
        order = LengthGroupedOrder(order, lengths, global_batch, positions, seed)
    return order
