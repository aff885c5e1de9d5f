"""Which records are held out, and in which order the others are trained on. Pure."""

import random
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")


def validation_count(records: int, percent: int) -> int:
    """Records to hold out: the rounded share, but at least one, and at least one stays for training."""
    return min(max(1, round(records * percent / 100)), records - 1)


def hold_out(keys: NDArray[np.uint64], percent: int, seed: int) -> NDArray[np.bool_]:
    """Which records are held out: a share of the distinct ones, with all their copies, so that no copy of a held-out
    record is trained on. The same seed holds out the same records.

    Args:
        keys: Shape (records,), equal for copies; at least two distinct ones.
        percent: Share of the distinct records.
        seed: Of the choice.
    """
    _, first, group = np.unique(keys, return_index=True, return_inverse=True)
    by_appearance = np.empty(len(first), np.int64)
    by_appearance[np.argsort(first)] = np.arange(len(first))
    chosen = random.Random(seed).sample(range(len(first)), validation_count(len(first), percent))
    result: NDArray[np.bool_] = np.isin(by_appearance[group], chosen)
    return result


def sample(records: Sequence[T], count: int, seed: int) -> list[T]:
    """At most `count` records from all over the file, in file order; the same seed picks the same ones."""
    if len(records) <= count:
        return list(records)
    return [records[index] for index in sorted(random.Random(f"{seed}/sample").sample(range(len(records)), count))]


class DataOrder:
    """The record trained at each position of the run: one fresh permutation per pass, without end.

    Optimizer step s consumes the positions [s x global batch, (s + 1) x global batch), whatever number of
    processes share them. That makes a run of two pods compute what one process computes, and lets a resumed run
    go on at position s x global batch.
    """

    def __init__(self, records: int, seed: int) -> None:
        self.records = records
        self.seed = seed
        self._epoch = -1
        self._order: NDArray[np.unsignedinteger[Any]] = np.empty(0, np.uint8)

    def __getitem__(self, position: int) -> int:
        epoch, offset = divmod(position, self.records)
        if epoch != self._epoch:
            # As narrow as it may be: every process holds it. numpy shuffles without the GIL.
            self._order = np.arange(self.records, dtype=np.min_scalar_type(self.records))
            np.random.Generator(np.random.PCG64([self.seed, epoch])).shuffle(self._order)
            self._epoch = epoch
        return int(self._order[offset])

    def stretch(self, position: int) -> range:
        """The positions of the pass that this one is in."""
        start = position - position % self.records
        return range(start, start + self.records)
