"""Laws of the split and of the order of the records."""

import numpy as np
from hypothesis import assume, given
from hypothesis import strategies as st

from tunewright_api.hyperparameters import Hyperparameters
from tunewright_trainer.data.split import DataOrder, hold_out, sample, validation_count
from tunewright_trainer.plan import plan_run


@given(keys=st.lists(st.integers(0, 50), min_size=2, max_size=200), percent=st.integers(1, 50), seed=st.integers(0, 99))
def test_a_share_of_the_distinct_records_is_held_out_with_all_copies(keys: list[int], percent: int, seed: int) -> None:
    assume(len(set(keys)) > 1)
    given_keys = np.array(keys, np.uint64)
    held = hold_out(given_keys, percent, seed)
    out, kept = set(given_keys[held].tolist()), set(given_keys[~held].tolist())
    assert not out & kept
    assert len(out) == validation_count(len(set(keys)), percent)
    assert kept
    assert (held == hold_out(given_keys, percent, seed)).all()


@given(records=st.integers(1, 500), count=st.integers(1, 100), seed=st.integers(0, 2**31 - 1))
def test_a_sample_keeps_the_order_of_the_file(records: int, count: int, seed: int) -> None:
    chosen = sample(range(records), count, seed)
    assert len(chosen) == min(count, records)
    assert chosen == sorted(set(chosen))
    assert set(chosen) <= set(range(records))
    assert chosen == sample(range(records), count, seed)


def test_a_sample_comes_from_all_over_the_file() -> None:
    chosen = sample(range(1000), 100, 42)
    quarters = [record // 250 for record in chosen]
    assert [quarters.count(quarter) for quarter in range(4)] == [22, 25, 29, 24]
    assert chosen != sample(range(1000), 100, 43)


def test_another_seed_holds_out_other_records() -> None:
    keys = np.arange(100, dtype=np.uint64)
    assert (hold_out(keys, 10, 1) != hold_out(keys, 10, 2)).any()


@given(records=st.integers(1, 60), seed=st.integers(0, 1000), start=st.integers(0, 200))
def test_each_pass_sees_each_record_once_and_positions_do_not_depend_on_the_start(
    records: int, seed: int, start: int
) -> None:
    order = DataOrder(records, seed)
    whole = [order[position] for position in range(start + 2 * records)]
    for first in range(0, len(whole) - records + 1, records):
        assert sorted(whole[first : first + records]) == list(range(records))
    resumed = DataOrder(records, seed)
    assert [resumed[position] for position in range(start, len(whole))] == whole[start:]


@given(
    records=st.integers(1, 1000), world=st.sampled_from([1, 2, 4]), epochs=st.integers(1, 5), micro=st.integers(1, 8)
)
def test_a_run_covers_its_epochs_and_no_step_more(records: int, world: int, epochs: int, micro: int) -> None:
    plan = plan_run(Hyperparameters(epochs=epochs, micro_batch_size=micro), records, world)
    assert plan.global_batch == micro * world
    assert plan.epoch(plan.total_steps) >= epochs > plan.epoch(plan.total_steps - 1)


def test_the_same_global_batch_gives_the_same_plan_for_any_number_of_processes() -> None:
    one = plan_run(Hyperparameters(micro_batch_size=8, warmup_ratio=0.1), 100, 1)
    two = plan_run(Hyperparameters(micro_batch_size=2, gradient_accumulation_steps=2, warmup_ratio=0.1), 100, 2)
    assert one == two
    assert (one.total_steps, one.warmup_steps) == (38, 4)


def test_the_warm_up_is_no_step_longer_for_what_binary_fractions_cannot_say() -> None:
    assert plan_run(Hyperparameters(max_steps=100, warmup_ratio=0.07), 100, 1).warmup_steps == 7
    assert plan_run(Hyperparameters(max_steps=100, warmup_ratio=0.071), 100, 1).warmup_steps == 8
