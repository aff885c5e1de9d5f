"""Optimizer, its groups and the learning rate: laws, and numbers worked out by hand."""

import math
from collections.abc import Callable, Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from tests.trainer.support import Job, step_record
from tunewright_api.hyperparameters import EarlyStopping, Hyperparameters, Scheduler
from tunewright_api.hyperparameters import Optimizer as OptimizerName
from tunewright_trainer.optim import optimizer as optimizer_module
from tunewright_trainer.optim.early_stopping import EarlyStop, Patience
from tunewright_trainer.optim.groups import decay_groups
from tunewright_trainer.optim.optimizer import build_optimizer
from tunewright_trainer.optim.schedule import learning_rate
from tunewright_trainer.steps import StepRecord, StopTraining

# --- the learning rate --------------------------------------------------------------------------


def curve(scheduler: Scheduler, warmup: int, total: int, peak: float = 1.0) -> list[float]:
    return [
        learning_rate(step, peak=peak, scheduler=scheduler, warmup_steps=warmup, total_steps=total)
        for step in range(total)
    ]


@pytest.mark.parametrize(
    ("scheduler", "want"),
    [
        (Scheduler.CONSTANT, [1 / 3, 2 / 3, 1, 1, 1, 1]),
        (Scheduler.LINEAR, [1 / 3, 2 / 3, 1, 3 / 4, 1 / 2, 1 / 4]),
        (Scheduler.COSINE, [1 / 3, 2 / 3, 1, (1 + math.sqrt(0.5)) / 2, 1 / 2, (1 - math.sqrt(0.5)) / 2]),
    ],
)
def test_two_steps_of_warm_up_and_four_more(scheduler: Scheduler, want: list[float]) -> None:
    assert curve(scheduler, 2, 6) == pytest.approx(want)


RUNS = st.integers(1, 200).flatmap(lambda total: st.tuples(st.integers(0, total), st.just(total)))


@given(st.sampled_from(Scheduler), RUNS)
def test_it_rises_to_its_peak_and_falls_but_never_to_zero(scheduler: Scheduler, run: tuple[int, int]) -> None:
    warmup, total = run
    rates = curve(scheduler, warmup, total)
    assert all(0 < rate <= 1 for rate in rates)
    assert rates[:warmup] == sorted(rates[:warmup])
    assert rates[warmup:] == sorted(rates[warmup:], reverse=True)
    if warmup < total:
        assert rates[warmup] == 1


@given(st.sampled_from(Scheduler), RUNS, st.floats(1e-8, 1))
def test_it_is_proportional_to_its_peak(scheduler: Scheduler, run: tuple[int, int], peak: float) -> None:
    assert curve(scheduler, *run, peak=peak) == pytest.approx([peak * rate for rate in curve(scheduler, *run)])


# --- early stopping -----------------------------------------------------------------------------


def after(losses: Sequence[float], rule: EarlyStopping) -> Patience:
    patience = Patience()
    for loss in losses:
        patience = patience.after(loss, rule)
    return patience


@pytest.mark.parametrize(
    ("losses", "want"),
    [
        pytest.param([3.0, 2.0, 1.0], Patience(1.0, 0), id="it falls"),
        pytest.param([1.0, 2.0, 1.0], Patience(1.0, 2), id="as low as before is not better"),
        pytest.param([1.0, 0.95, 0.85], Patience(0.85, 0), id="small steps add up against the best that counted"),
        pytest.param([1.0, math.nan], Patience(1.0, 1), id="no number is not better"),
    ],
)
def test_patience(losses: list[float], want: Patience) -> None:
    assert after(losses, EarlyStopping(patience=5, min_delta=0.1)) == want


LOSSES = st.lists(st.floats(0, 10), min_size=1, max_size=30)


@given(LOSSES, st.integers(1, 5), st.floats(0, 1))
def test_a_loss_that_falls_by_more_than_the_least_at_every_evaluation_never_stops(
    falls: list[float], patience: int, least: float
) -> None:
    rule = EarlyStopping(patience=patience, min_delta=least)
    losses = [1000.0]
    for fall in falls:
        losses.append(losses[-1] - least - fall - 1e-6)
    assert not after(losses, rule).exhausted(rule)


@given(LOSSES, st.integers(1, 5), st.floats(0, 1))
def test_it_stops_exactly_when_the_last_ones_were_no_better_than_the_best_before(
    losses: list[float], patience: int, least: float
) -> None:
    rule = EarlyStopping(patience=patience, min_delta=least)
    state = after(losses, rule)
    best = losses[len(losses) - 1 - state.since]
    assert state.best == best
    assert all(loss >= best - least for loss in losses[len(losses) - state.since :])
    assert state.exhausted(rule) == (state.since >= patience)


def evaluated(loss: float | None) -> StepRecord:
    """A step, after which the held-out records may have been looked at."""
    return step_record(figures={} if loss is None else {"evalLoss": loss})


def test_the_hook_remembers_what_was_before_a_resume_and_steps_without_evaluation_do_not_count() -> None:
    stop = EarlyStop(EarlyStopping(patience=2), [1.0, 2.0], from_first=lambda number: number)
    stop.on_step(evaluated(None))
    with pytest.raises(StopTraining, match=r"was 1 at its lowest, and 2 evaluations in a row were not better"):
        stop.on_step(evaluated(1.5))


def test_rank_0_decides() -> None:
    EarlyStop(EarlyStopping(patience=1), [1.0], from_first=lambda _: 0).on_step(evaluated(2.0))
    with pytest.raises(StopTraining):
        EarlyStop(EarlyStopping(patience=9), [], from_first=lambda _: 1).on_step(evaluated(2.0))


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_run_that_gets_no_better_ends_with_its_weights(job: Callable[..., Job]) -> None:
    made = job(
        hyperparameters={"maxSteps": 20, "earlyStopping": {"patience": 2, "minDelta": 100}},
        evaluation={"everySteps": 2},
    )
    assert made.must("prepare", "train")["train"]["steps"] == 6
    assert (made.work / "trained" / "adapter_model.safetensors").is_file()


# --- parameter groups ---------------------------------------------------------------------------


def net() -> nn.Module:
    """A matrix with a bias, a norm, and a frozen matrix."""
    model = nn.Sequential(nn.Linear(64, 80), nn.LayerNorm(80), nn.Linear(80, 64, bias=False))
    model[2].weight.requires_grad_(requires_grad=False)
    return model


def test_only_matrices_decay() -> None:
    model = net()
    assert decay_groups(model.named_parameters(), 0.1) == [
        {"params": [model[0].weight], "weight_decay": 0.1},
        {"params": [model[0].bias, model[1].weight, model[1].bias], "weight_decay": 0.0},
    ]


def test_a_matrix_of_which_zero_3_left_nothing_here_decays() -> None:
    parameter = nn.Parameter(torch.empty(0))
    parameter.ds_shape = torch.Size([64, 64])
    assert decay_groups([("weight", parameter)], 0.1) == [{"params": [parameter], "weight_decay": 0.1}]


# --- the optimizer ------------------------------------------------------------------------------


def train(name: OptimizerName, steps: int, *, break_at: int | None = None) -> list[torch.Tensor]:
    """The parameters after some steps on fixed gradients; at `break_at` the state goes through a checkpoint."""
    torch.manual_seed(0)
    model = net()
    settings = Hyperparameters(optimizer=name, learning_rate=1e-2, weight_decay=0.1)
    optimizer = build_optimizer(model.named_parameters(), settings, "cpu")
    for step in range(steps):
        if step == break_at:
            saved = optimizer.state_dict()
            optimizer = build_optimizer(model.named_parameters(), settings, "cpu")
            optimizer.load_state_dict(saved)
        inputs = torch.randn(4, 64, generator=torch.Generator().manual_seed(step))
        model(inputs).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    return [parameter.detach().clone() for parameter in model.parameters()]


def test_adamw_is_that_of_the_paper() -> None:
    parameter = nn.Parameter(torch.full((2, 2), 0.5))
    settings = Hyperparameters(learning_rate=0.1, weight_decay=0.2)
    optimizer = build_optimizer([("weight", parameter)], settings, "cpu")
    first, second, value = 0.0, 0.0, 0.5
    for step, gradient in enumerate((0.3, -0.1, 0.2), start=1):
        parameter.grad = torch.full((2, 2), gradient)
        optimizer.step()
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        update = (first / (1 - 0.9**step)) / (math.sqrt(second / (1 - 0.999**step)) + 1e-8)
        value -= 0.1 * (0.2 * value + update)
        assert parameter.detach().flatten().tolist() == pytest.approx([value] * 4, rel=1e-5)


@pytest.mark.parametrize("name", [OptimizerName.ADAMW_8BIT, OptimizerName.PAGED_ADAMW_8BIT])
def test_8_bits_follow_32_bits(name: OptimizerName) -> None:
    start, exact, rounded = train(OptimizerName.ADAMW, 0), train(OptimizerName.ADAMW, 20), train(name, 20)
    for before, want, got in zip(start, exact, rounded, strict=True):
        moved = (want - before).norm()
        assert (got - want).norm() <= 0.05 * moved


@pytest.mark.parametrize("name", OptimizerName)
def test_a_checkpoint_does_not_change_the_course(name: OptimizerName) -> None:
    for want, got in zip(train(name, 8), train(name, 8, break_at=4), strict=True):
        assert torch.equal(got, want)


@pytest.mark.parametrize("embedding", ["embed_tokens", "wte", "word_embeddings"])
def test_moments_take_one_byte_but_those_of_embeddings(embedding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # bitsandbytes knows parameters by their address, also those of an earlier test.
    monkeypatch.setattr("bitsandbytes.optim.GlobalOptimManager._instance", None)
    model = nn.ModuleDict({embedding: nn.Embedding(128, 64), "up": nn.Linear(64, 128, bias=False)})
    settings = Hyperparameters(optimizer=OptimizerName.ADAMW_8BIT)
    optimizer = build_optimizer(model.named_parameters(), settings, "cpu")
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    assert optimizer.state[model["up"].weight]["state1"].dtype is torch.uint8
    assert optimizer.state[model[embedding].weight]["state1"].dtype is torch.float32


@pytest.mark.parametrize(
    ("name", "device", "want"),
    [
        (OptimizerName.ADAMW_8BIT, "cuda", "AdamW8bit"),
        (OptimizerName.PAGED_ADAMW_8BIT, "cuda", "PagedAdamW8bit"),
        (OptimizerName.PAGED_ADAMW_8BIT, "cpu", "AdamW8bit"),
    ],
)
def test_what_pages(name: OptimizerName, device: str, want: str) -> None:
    assert optimizer_module._eight_bit(name, device).__name__ == want
