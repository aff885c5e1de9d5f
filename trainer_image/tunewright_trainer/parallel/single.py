"""One process."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tunewright_trainer import weights
from tunewright_trainer.objectives.objective import Batch, Objective
from tunewright_trainer.parallel.replica import replica_state, restore_replica
from tunewright_trainer.parallel.strategy import OptimizerFactory, StepResult
from tunewright_trainer.parallel.update import Cast, Update, accumulate, loss_sum


class Single:
    """A `Strategy` of one process."""

    data_rank, data_size, state_rank = 0, 1, 0

    def __init__(self, device: torch.device, cast: Cast, *, scales_loss: bool) -> None:
        self._device, self._cast, self._scales_loss = device, cast, scales_loss

    def wrap(self, model: nn.Module, optimizer: OptimizerFactory) -> None:
        """Put the model on the device and make the optimizer."""
        self._model = model.to(self._device)
        self._update = Update(optimizer(model.named_parameters()), self._device, scales_loss=self._scales_loss)

    def step(
        self,
        micro_batches: Sequence[Batch],
        objective: Objective,
        *,
        units: int,
        learning_rate: float,
        max_grad_norm: float,
    ) -> StepResult:
        """See `Strategy.step`."""
        total = accumulate(
            self._model,
            micro_batches,
            objective,
            cast=self._cast,
            backward=self._update.backward,
            scale=1 / units,
        )
        norm = self._update.apply(learning_rate=learning_rate, max_grad_norm=max_grad_norm)
        return StepResult(loss=float(total) / units, grad_norm=float(norm))

    def evaluate(self, micro_batches: Sequence[Batch], objective: Objective) -> float:
        """See `Strategy.evaluate`."""
        return float(loss_sum(self._model, micro_batches, objective, self._cast))

    def state(self) -> dict[str, Any]:
        """See `Strategy.state`."""
        return replica_state(self._model, self._update)

    def restore(self, state: dict[str, Any]) -> None:
        """See `Strategy.restore`."""
        restore_replica(self._model, self._update, state)

    def gather(self, *, keep: bool, dtype: torch.dtype | None, whole: bool) -> dict[str, Tensor]:
        """See `weights.gather`."""
        return weights.gather(self._model, keep=keep, dtype=dtype, whole=whole)
