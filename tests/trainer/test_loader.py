"""Who reads which records, and what the loading thread does when something ends."""

import threading

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tunewright_trainer.loader import Loader, Share
from tunewright_trainer.objectives.objective import Batch

CPU = torch.device("cpu")


class Numbers:
    """Batches that name their positions; fails at one of them."""

    def __init__(self, broken: int | None = None) -> None:
        self.broken = broken

    def batch(self, positions: range) -> Batch:
        if self.broken in positions:
            raise ValueError(f"no record at {self.broken}")
        rows = torch.tensor([list(positions)])
        return Batch({"input_ids": rows}, rows, units=len(positions), tokens=len(positions), samples=1)


@given(
    step=st.integers(0, 100),
    size=st.integers(1, 5),
    micro_batch=st.integers(1, 5),
    accumulation=st.integers(1, 5),
)
def test_a_step_reads_each_of_its_positions_once(step: int, size: int, micro_batch: int, accumulation: int) -> None:
    shares = [Share(rank, size, micro_batch, accumulation).positions(step) for rank in range(size)]
    read = sorted(position for share in shares for positions in share for position in positions)
    batch = size * micro_batch * accumulation
    assert read == list(range(step * batch, (step + 1) * batch))
    assert [len(share) for share in shares] == [accumulation] * size


def test_steps_come_in_order_from_the_first_one_on() -> None:
    loader = Loader(Numbers(), Share(rank=1, size=2, micro_batch=2, accumulation=2), CPU, first=3, last=5)
    taken = [[batch.labels.tolist() for batch in loader.take()[0]] for _ in range(2)]
    loader.close()
    assert taken == [[[[26, 27]], [[30, 31]]], [[[34, 35]], [[38, 39]]]]


def test_an_error_in_the_thread_is_raised_where_the_batch_is_needed() -> None:
    loader = Loader(Numbers(broken=2), Share(rank=0, size=1, micro_batch=2, accumulation=1), CPU, first=0, last=9)
    assert loader.take()[0][0].labels.tolist() == [[0, 1]]
    with pytest.raises(ValueError, match="no record at 2"):
        loader.take()
    loader.close()


def test_no_thread_is_left_when_a_run_ends_early() -> None:
    loader = Loader(Numbers(), Share(rank=0, size=1, micro_batch=1, accumulation=1), CPU, first=0, last=1000)
    loader.take()
    loader.close()
    assert "loader" not in {thread.name for thread in threading.enumerate()}
