"""Laws of the split and of the order of the records."""

from hypothesis import given
from hypothesis import strategies as st

from tunewright_api.hyperparameters import Hyperparameters
from tunewright_trainer.data.split import DataOrder, sample, split, validation_count
from tunewright_trainer.plan import plan_run


@given(records=st.integers(2, 500), percent=st.integers(1, 50), seed=st.integers(0, 2**31 - 1))
def test_the_split_is_a_partition_that_the_seed_decides(records: int, percent: int, seed: int) -> None:
    train, validation = split(range(records), percent, seed)
    assert sorted(train + validation) == list(range(records))
    assert train == sorted(train)
    assert len(validation) == validation_count(records, percent)
    assert train
    assert validation
    assert (train, validation) == split(range(records), percent, seed)


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
    assert split(range(100), 10, 1) != split(range(100), 10, 2)


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
