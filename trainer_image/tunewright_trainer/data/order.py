"""Which record is trained at each position of a run. Pure, and a function of the position alone: a run that resumes at
a position, or is shared by more processes, sees the same records."""

import random
from collections.abc import Sequence
from itertools import accumulate, pairwise
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


class PassOrder(Order, Protocol):
    """An order that knows where passes over the records begin."""

    def stretch(self, position: int) -> range:
        """Positions around this one, up to where a pass ends, in which no record stands twice."""
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

    def stretch(self, position: int) -> range:
        """The positions around this one in which no part begins anew."""
        period, offset = divmod(position, sum(self._shares))
        parts = self._parts_of(period)
        starts, ends = [0], []
        for part, share in enumerate(self._shares):
            size = self._orders[part].records
            turn = period * share + parts[: offset + 1].count(part) - 1  # the last one up to this position
            begun = max(turn, 0) // size
            if begun:
                starts.append(self._position(part, begun * size))
            ends.append(self._position(part, (begun + 1) * size))
        return range(max(starts), min(ends))

    def _position(self, part: int, turn: int) -> int:
        """Where a part has its turn, counted from 0."""
        period, number = divmod(turn, self._shares[part])
        offsets = [offset for offset, other in enumerate(self._parts_of(period)) if other == part]
        return period * sum(self._shares) + offsets[number]

    def _parts_of(self, period: int) -> list[int]:
        parts = [part for part, share in enumerate(self._shares) for _ in range(share)]
        random.Random(f"{self._seed}/mixture/{period}").shuffle(parts)
        return parts

    def _begin(self, period: int) -> None:
        self._period = period
        self._parts = self._parts_of(period)
        seen = [0] * len(self._shares)
        self._turns = []
        for part in self._parts:
            self._turns.append(seen[part])
            seen[part] += 1


class LengthGroupedOrder:
    """Another order with records of similar length side by side, so that rows of a micro batch need little padding.

    Within a window the records are sorted by length and dealt out batch by batch, to the batches in an order of their
    own. A window is `WINDOW` global batches, but ends where a pass over the records ends and where the run ends. It
    holds the records that it held before, so each pass has each record once, and a batch can have a record twice only
    where a pass ends within it.

    Args:
        order: The order within which records are exchanged.
        lengths: Tokens of each record.
        global_batch: Records per optimizer step.
        positions: Length of the run.
        seed: Of the order of batches.
    """

    WINDOW = 50

    def __init__(
        self, order: PassOrder, lengths: NDArray[np.int64], global_batch: int, positions: int, seed: int
    ) -> None:
        self._order, self._lengths, self._batch = order, lengths, global_batch
        self._positions, self._seed = positions, seed
        self._window = range(0)
        self._records: list[int] = []

    def __getitem__(self, position: int) -> int:
        if position not in self._window:
            self._begin(position)
        return self._records[position - self._window.start]

    def _begin(self, position: int) -> None:
        size = self.WINDOW * self._batch
        stretch, first = self._order.stretch(position), position - position % size
        start, end = max(first, stretch.start), min(first + size, stretch.stop)
        if position < self._positions:
            end = min(end, self._positions)
        else:
            start = max(start, self._positions)
        self._window = range(start, end)
        records = sorted((self._order[other] for other in self._window), key=lambda record: -self._lengths[record])
        dealt = self._batches()
        random.Random(f"{self._seed}/window/{start}").shuffle(dealt)
        taken = 0
        self._records = [0] * len(records)
        for batch in dealt:
            begin = batch.start - start
            self._records[begin : begin + len(batch)] = records[taken : taken + len(batch)]
            taken += len(batch)

    def _batches(self) -> list[range]:
        """What of each global batch lies in the window."""
        first = self._window.start - self._window.start % self._batch
        starts = [self._window.start, *range(first + self._batch, self._window.stop, self._batch)]
        return [range(start, end) for start, end in pairwise([*starts, self._window.stop])]


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
    order: PassOrder = DataOrder(len(sources), seed)
    if len(weights) > 1:
        order = MixtureOrder(np.bincount(sources, minlength=len(weights)).tolist(), weights, seed)
    if lengths is None:
        return order
    return LengthGroupedOrder(order, lengths, global_batch, positions, seed)
