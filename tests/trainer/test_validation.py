"""The held-out loss is a mean over all units, however many processes share the records."""

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tunewright_trainer.objectives.objective import IGNORED, Batch
from tunewright_trainer.processes import Processes
from tunewright_trainer.validation import Validation


class Counting:
    """The record at position p has p + 1 units."""

    def batch(self, positions: range) -> Batch:
        labels = torch.tensor([list(positions)])
        units = sum(position + 1 for position in positions)
        return Batch({"input_ids": labels}, labels, units=units, tokens=units, samples=len(positions))


class Replay:
    """A strategy whose loss of a batch is twice the sum of its labels; notes how often it was asked."""

    def __init__(self, rank: int, size: int) -> None:
        self.data_rank, self.data_size, self.calls = rank, size, 0

    def evaluate(self, micro_batches: list[Batch], objective: object) -> float:
        (batch,) = micro_batches
        self.calls += 1
        return 2.0 * sum(label for label in batch.labels.flatten().tolist() if label != IGNORED)


@given(records=st.integers(1, 30), micro_batch=st.integers(1, 7), size=st.integers(1, 5))
def test_each_record_counts_once_and_all_processes_make_as_many_passes(
    records: int, micro_batch: int, size: int
) -> None:
    strategies = [Replay(rank, size) for rank in range(size)]
    units: list[int] = []
    shares = [
        Validation(
            Counting(), records, micro_batch, strategy=strategy, objective=None, processes=Telling(units, size)
        ).loss()  # type: ignore[arg-type]
        for strategy in strategies
    ]
    # Each process alone knows its own share here: loss x units is what it added.
    assert sum(share * own for share, own in zip(shares, units, strict=True)) == pytest.approx(records * (records - 1))
    assert sum(units) == records * (records + 1) // 2
    assert len({strategy.calls for strategy in strategies}) == 1


def test_each_micro_batch_shows_that_the_evaluation_goes_on() -> None:
    strategy, processes = Replay(0, 1), Telling([], 1)
    followed: list[int] = []

    def follow(firsts: Sequence[int]) -> Sequence[int]:
        followed.extend(firsts)
        return firsts

    Validation(Counting(), 7, 3, strategy=strategy, objective=None, processes=processes).loss(follow)  # type: ignore[arg-type]
    assert followed == [0, 3, 6]


class Telling(Processes):
    """One process that notes what it would add up with the others."""

    def __init__(self, heard: list[int], world_size: int) -> None:
        super().__init__(torch.device("cpu"), world_size=world_size)
        object.__setattr__(self, "heard", heard)

    def total(self, numbers: list[int]) -> list[int]:
        self.heard.extend(numbers)
        return numbers
