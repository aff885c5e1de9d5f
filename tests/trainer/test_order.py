"""Laws of grouping by length, and what the order of many records costs."""

import tracemalloc

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tunewright_trainer.data.order import LengthGroupedOrder, MixtureOrder, PassOrder
from tunewright_trainer.data.split import DataOrder


def lengths_of(records: int, seed: int) -> NDArray[np.int64]:
    return np.random.default_rng(seed).integers(1, 100, records)


def batches_without_an_end(order: PassOrder, batch: int, positions: int) -> list[range]:
    """The global batches in which no pass ends."""
    batches = [range(first, first + batch) for first in range(0, positions, batch)]
    return [positions for positions in batches if positions.stop <= order.stretch(positions.start).stop]


@given(
    records=st.integers(1, 120),
    batch=st.integers(1, 8),
    steps=st.integers(1, 120),
    seed=st.integers(0, 9),
    start=st.integers(0, 900),
)
def test_grouped_by_length_a_pass_has_each_record_once_and_a_batch_none_twice(
    records: int, batch: int, steps: int, seed: int, start: int
) -> None:
    lengths, positions = lengths_of(records, seed), steps * batch
    plain = DataOrder(records, seed)

    def grouped() -> LengthGroupedOrder:
        return LengthGroupedOrder(DataOrder(records, seed), lengths, batch, positions, seed)

    order = grouped()
    seen = [order[position] for position in range(positions)]
    for first in range(0, positions - records + 1, records):
        assert sorted(seen[first : first + records]) == list(range(records))
    for inside in batches_without_an_end(plain, batch, positions):
        assert len({seen[position] for position in inside}) == batch
    if records >= batch:
        assert max(np.bincount(seen[first : first + batch]).max() for first in range(0, positions, batch)) <= 2
    resumed = grouped()
    assert [resumed[position] for position in range(start, positions)] == seen[start:]
    # The run sees the records that it sees without grouping, in its last pass too.
    assert sorted(seen) == sorted(plain[position] for position in range(positions))


@given(
    sizes=st.lists(st.integers(1, 40), min_size=2, max_size=3),
    batch=st.integers(1, 6),
    seed=st.integers(0, 9),
    start=st.integers(0, 300),
    data=st.data(),
)
def test_grouped_by_length_a_mixture_repeats_a_record_only_where_a_part_begins_anew(
    sizes: list[int], batch: int, seed: int, start: int, data: st.DataObject
) -> None:
    weights = data.draw(st.lists(st.integers(1, 5), min_size=len(sizes), max_size=len(sizes)))
    positions = 50 * batch
    mixture = MixtureOrder(sizes, weights, seed)

    def grouped() -> LengthGroupedOrder:
        return LengthGroupedOrder(mixture, lengths_of(sum(sizes), seed), batch, positions, seed)

    order = grouped()
    seen = [order[position] for position in range(positions)]
    for inside in batches_without_an_end(mixture, batch, positions):
        assert len({seen[position] for position in inside}) == batch
    resumed = grouped()
    assert [resumed[position] for position in range(start, positions)] == seen[start:]


@given(
    sizes=st.lists(st.integers(1, 12), min_size=2, max_size=3),
    weights=st.lists(st.integers(1, 5), min_size=3, max_size=3),
    seed=st.integers(0, 9),
)
def test_the_stretches_of_a_mixture_end_where_a_record_comes_again(
    sizes: list[int], weights: list[int], seed: int
) -> None:
    order = MixtureOrder(sizes, weights[: len(sizes)], seed)
    begun, ends, turns = np.repeat(np.arange(len(sizes)), sizes), {0}, [0] * len(sizes)
    for position in range(200):
        part = begun[order[position]]
        if turns[part] % sizes[part] == 0 and turns[part]:
            ends.add(position)
        turns[part] += 1
    found = {order.stretch(position).start for position in range(200)}
    assert found == ends
    assert all(position in order.stretch(position) for position in range(200))


@given(records=st.integers(200, 400), seed=st.integers(0, 9))
def test_grouping_by_length_saves_padding(records: int, seed: int) -> None:
    batch, lengths = 8, lengths_of(records, seed)
    positions = 2 * (records // batch) * batch

    def padded(order: PassOrder | LengthGroupedOrder) -> int:
        return sum(
            batch * int(max(lengths[order[position]] for position in range(first, first + batch)))
            for first in range(0, positions, batch)
        )

    plain = DataOrder(records, seed)
    assert padded(LengthGroupedOrder(plain, lengths, batch, positions, seed)) < 0.75 * padded(plain)


def test_the_order_of_a_million_records_takes_four_bytes_each() -> None:
    tracemalloc.start()
    try:
        order = DataOrder(1_000_000, 42)
        first = [order[position] for position in range(5)]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 5_000_000
    # A checkpoint holds a position in this order, so another order would repeat and leave out records on resume.
    assert first == [97305, 228106, 970098, 780379, 966161]
