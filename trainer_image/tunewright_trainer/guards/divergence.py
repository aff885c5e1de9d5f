"""Stop a run one of whose losses is no number, or whose smoothed loss has left its minimum for good. Pure."""

import math

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
    """Watches the losses, which all ranks see alike, so that they end together.

    Args:
        rule: When the smoothed loss counts as diverged; None looks for numbers only.
    """

    def __init__(self, rule: Divergence | None) -> None:
        self._rule, self._smoothed = rule, Smoothed()
        self._lowest, self._lowest_step, self._above = math.inf, 0, 0

    def on_step(self, record: StepRecord) -> None:
        """Look at a finished step.

        Raises:
            StageError: DIVERGED.
        """
        evaluated = record.figures.get(EVAL_LOSS, 0.0)
        for name, loss in (("loss", record.loss), ("loss on held-out records", evaluated)):
            if not math.isfinite(loss):
                raise StageError(ExitCode.DIVERGED, f"the {name} became {loss} at step {record.step}: {_REMEDY}")
        if self._rule is None:
            return
        smoothed = self._smoothed.add(record.loss)
        if smoothed < self._lowest:
            self._lowest, self._lowest_step = smoothed, record.step
        self._above = self._above + 1 if smoothed > self._rule.factor * self._lowest else 0
        if self._above >= self._rule.patience:
            raise StageError(
                ExitCode.DIVERGED,
                f"the smoothed loss is {smoothed:.4g} at step {record.step}, after {_steps(self._above)} above "
                f"{self._rule.factor:g} x its minimum of {self._lowest:.4g} at step {self._lowest_step}: {_REMEDY}, or "
                "set hyperparameters.divergence.factor higher",
            )


def _steps(count: int) -> str:
    return "1 step" if count == 1 else f"{count} steps"
