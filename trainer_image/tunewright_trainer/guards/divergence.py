"""Stop a run whose loss or gradient is no number, or whose smoothed loss has left its minimum for good. Pure."""

import math
from collections.abc import Callable, Iterable

from tunewright_api.names import ExitCode
from tunewright_api.training_guards import Divergence
from tunewright_trainer.errors import StageError
from tunewright_trainer.steps import EVAL_LOSS, StepRecord

SMOOTHING = 0.9
"""Weight of the past in the exponential moving average, as for Adam's first moment."""

_REMEDY = "lower hyperparameters.learningRate, or raise warmupRatio"


class Smoothed:
    """Exponential moving average, corrected for its start from zero (Kingma and Ba 2015, arXiv:1412.6980)."""

    def __init__(self, weight: float = SMOOTHING) -> None:
        self._weight, self._sum, self._norm = weight, 0.0, 0.0

    def add(self, value: float) -> float:
        """The average with this value."""
        self._sum = self._weight * self._sum + (1 - self._weight) * value
        self._norm = self._weight * self._norm + (1 - self._weight)
        return self._sum / self._norm


class DivergenceGuard:
    """Watches what all ranks see alike, so that they end together, and before anything of the step is saved.

    Args:
        rule: When the smoothed loss counts as diverged; None looks for numbers only.
        scales_loss: Whether the loss is scaled (FP16): a step whose gradient is no number changes nothing there.
        past: The steps before a resume, in their order; only those of rank 0 count.
        from_first: The number of rank 0, on every rank: it alone knows the past, so it decides about the smoothed loss.
    """

    def __init__(
        self,
        rule: Divergence | None,
        *,
        scales_loss: bool = False,
        past: Iterable[StepRecord] = (),
        from_first: Callable[[int], int] = int,
    ) -> None:
        self._rule, self._scales_loss, self._from_first = rule, scales_loss, from_first
        self._smoothed = Smoothed()
        self._lowest, self._lowest_step, self._above = math.inf, 0, 0
        if rule:
            for record in past:
                self._add(record, rule)

    def on_step(self, record: StepRecord) -> None:
        """Look at a finished step.

        Raises:
            StageError: DIVERGED.
        """
        for name, value in self._numbers(record):
            if not math.isfinite(value):
                raise StageError(ExitCode.DIVERGED, f"the {name} became {value} at step {record.step}: {_REMEDY}")
        if self._rule is None:
            return
        smoothed = self._add(record, self._rule)
        own = self._above >= self._rule.patience
        if not self._from_first(int(own)):
            return
        found = (
            f"the smoothed loss is {smoothed:.4g} at step {record.step}, after {_steps(self._above)} above "
            f"{self._rule.factor:g} x its minimum of {self._lowest:.4g} at step {self._lowest_step}"
            if own
            else f"rank 0 found the smoothed loss above {self._rule.factor:g} x its minimum for "
            f"{_steps(self._rule.patience)} at step {record.step}"
        )
        raise StageError(ExitCode.DIVERGED, f"{found}: {_REMEDY}, or set hyperparameters.divergence.factor higher")

    def _numbers(self, record: StepRecord) -> list[tuple[str, float]]:
        numbers = [("loss", record.loss), ("loss on held-out records", record.figures.get(EVAL_LOSS, 0.0))]
        return numbers if self._scales_loss else [*numbers, ("norm of the gradient", record.grad_norm)]

    def _add(self, record: StepRecord, rule: Divergence) -> float:
        smoothed = self._smoothed.add(record.loss)
        if smoothed < self._lowest:
            self._lowest, self._lowest_step = smoothed, record.step
        self._above = self._above + 1 if smoothed > rule.factor * self._lowest else 0
        return smoothed


def _steps(count: int) -> str:
    return "1 step" if count == 1 else f"{count} steps"
