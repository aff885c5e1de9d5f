"""Optimizer, its groups and the learning rate: laws, and numbers worked out by hand."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from tunewright_api.hyperparameters import Hyperparameters, Scheduler
from tunewright_api.hyperparameters import Optimizer as OptimizerName
from tunewright_trainer.optim import optimizer as optimizer_module
from tunewright_trainer.optim.groups import decay_groups
from tunewright_trainer.optim.optimizer import build_optimizer
from tunewright_trainer.optim.schedule import learning_rate

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


def test_moments_take_one_byte_but_those_of_embeddings() -> None:
    model = nn.ModuleDict({"embed": nn.Embedding(128, 64), "up": nn.Linear(64, 128, bias=False)})
    settings = Hyperparameters(optimizer=OptimizerName.ADAMW_8BIT)
    optimizer = build_optimizer(model.named_parameters(), settings, "cpu")
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    assert optimizer.state[model["up"].weight]["state1"].dtype is torch.uint8
    assert optimizer.state[model["embed"].weight]["state1"].dtype is torch.float32


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
