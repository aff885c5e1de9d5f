"""When a run stops because it no longer gets better."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from tunewright_api.hyperparameters import EarlyStopping
from tunewright_trainer.steps import EVAL_LOSS, StepRecord, StopTraining


@dataclass(frozen=True)
class Patience:
    """What the evaluations so far say. Pure.

    Attributes:
        best: The lowest loss that counted.
        since: Evaluations after it.
    """

    best: float = math.inf
    since: int = 0

    def after(self, loss: float, rule: EarlyStopping) -> "Patience":
        """With one more evaluation. A loss is better when it is lower by more than minDelta; NaN never is."""
        if loss < self.best - rule.min_delta:
            return Patience(loss)
        return replace(self, since=self.since + 1)

    def exhausted(self, rule: EarlyStopping) -> bool:
        """Whether to stop: `patience` evaluations in a row were not better."""
        return self.since >= rule.patience


class EarlyStop:
    """A hook of the loop.

    Args:
        rule: hyperparameters.earlyStopping.
        past: Losses of the evaluations before a resume, in their order; only those of rank 0 count.
        from_first: The number of rank 0, on every rank: it decides, so that all stop together.
    """

    def __init__(self, rule: EarlyStopping, past: Iterable[float], from_first: Callable[[int], int]) -> None:
        self._rule, self._from_first = rule, from_first
        self._patience = Patience()
        for loss in past:
            self._patience = self._patience.after(loss, rule)

    def on_step(self, record: StepRecord) -> None:
        """End the run after an evaluation that exhausts the patience.

        Raises:
            StopTraining: On every rank.
        """
        if EVAL_LOSS not in record.figures:
            return
        self._patience = self._patience.after(record.figures[EVAL_LOSS], self._rule)
        if self._from_first(int(self._patience.exhausted(self._rule))):
            raise StopTraining(
                f"the loss on held-out records was {self._patience.best:.6g} at its lowest, and "
                f"{self._rule.patience} evaluations in a row were not better by more than {self._rule.min_delta:g}"
            )
