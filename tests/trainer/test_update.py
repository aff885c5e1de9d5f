"""One optimizer step on a model of two weights, checked by hand."""

import contextlib
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tunewright_trainer.objectives.objective import Batch
from tunewright_trainer.parallel.single import Single
from tunewright_trainer.parallel.update import set_learning_rate


class SquaredError:
    """Sum over rows of (w x - y)^2, and a penalty of w / 2."""

    def __init__(self, penalty: bool = False) -> None:
        self._penalty = penalty

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        return (model(batch.inputs["x"]).squeeze(1) - batch.labels).pow(2).sum()

    def penalty(self, model: Any) -> Tensor | None:
        return model.weight.sum() / 2 if self._penalty else None

    def figures(self) -> dict[str, float]:
        return {}


def batch(x: list[float], y: list[float]) -> Batch:
    return Batch({"x": torch.tensor(x).unsqueeze(1)}, torch.tensor(y), units=len(x), tokens=len(x), samples=len(x))


def single(weight: float, *, scales_loss: bool = False) -> tuple[nn.Linear, Single]:
    """y = weight x with plain gradient descent."""
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, weight)
    strategy = Single(torch.device("cpu"), contextlib.nullcontext, scales_loss=scales_loss)
    strategy.wrap(model, lambda named: torch.optim.SGD([parameter for _, parameter in named], lr=1.0))
    return model, strategy


@pytest.mark.parametrize(
    ("penalty", "max_grad_norm", "want_norm", "want_weight"),
    [
        # Mean over units of d/dw (w x - y)^2 = 2 x (w x - y): (2 + 8 + 18) / 3 at w = 1, y = 0.
        pytest.param(False, 100.0, 28 / 3, 1 - 0.1 * 28 / 3, id="the mean is over units, not over micro batches"),
        pytest.param(True, 100.0, 28 / 3 + 0.5, 1 - 0.1 * (28 / 3 + 0.5), id="the penalty counts once per step"),
        pytest.param(False, 1.0, 28 / 3, 0.9, id="clipping changes the update and not the norm that is told"),
    ],
)
def test_a_step(*, penalty: bool, max_grad_norm: float, want_norm: float, want_weight: float) -> None:
    model, strategy = single(1.0)
    result = strategy.step(
        [batch([1.0, 2.0], [0.0, 0.0]), batch([3.0], [0.0])],
        SquaredError(penalty),
        units=3,
        learning_rate=0.1,
        max_grad_norm=max_grad_norm,
    )
    assert result.loss == pytest.approx(14 / 3)
    assert result.grad_norm == pytest.approx(want_norm)
    assert model.weight.item() == pytest.approx(want_weight, abs=1e-6)


def test_a_loss_that_overflows_in_fp16_changes_nothing_and_halves_the_scale() -> None:
    model, strategy = single(1.0, scales_loss=True)
    one = {"units": 1, "learning_rate": 0.1, "max_grad_norm": 100.0}
    before = strategy.state()["scaler"]["scale"]
    strategy.step([batch([1e38], [0.0])], SquaredError(), **one)
    assert model.weight.item() == 1.0
    assert strategy.state()["scaler"]["scale"] == before / 2
    result = strategy.step([batch([1.0], [0.0])], SquaredError(), **one)
    assert result.grad_norm == pytest.approx(2.0)
    assert model.weight.item() == pytest.approx(0.8)


def test_groups_keep_their_factor_of_the_learning_rate() -> None:
    weights = [nn.Parameter(torch.ones(1)) for _ in range(2)]
    optimizer = torch.optim.SGD([{"params": weights[:1]}, {"params": weights[1:], "lr_scale": 10.0}], lr=1.0)
    set_learning_rate(optimizer, 0.5)
    assert [group["lr"] for group in optimizer.param_groups] == [0.5, 5.0]


def test_evaluation_has_no_dropout_and_training_has_it_again() -> None:
    model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Dropout(0.999999))
    nn.init.ones_(model[0].weight)
    strategy = Single(torch.device("cpu"), contextlib.nullcontext, scales_loss=False)
    strategy.wrap(model.train(), lambda named: torch.optim.SGD([parameter for _, parameter in named], lr=1.0))
    assert strategy.evaluate([batch([2.0], [0.0]), batch([1.0], [0.0])], SquaredError()) == pytest.approx(5.0)
    assert model.training
