"""Data parallelism: a copy of the model in every process, gradients averaged (Li et al. 2020, arXiv:2006.15704)."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from tunewright_trainer import weights
from tunewright_trainer.objectives.objective import Batch, Objective
from tunewright_trainer.parallel.replica import replica_state, restore_replica
from tunewright_trainer.parallel.strategy import OptimizerFactory, StepResult
from tunewright_trainer.parallel.update import Cast, Update, accumulate, loss_sum_of_all
from tunewright_trainer.processes import Processes


class DataParallel:
    """A `Strategy` of equal processes."""

    state_rank = 0

    def __init__(self, processes: Processes, cast: Cast, *, scales_loss: bool) -> None:
        self.data_rank, self.data_size = processes.rank, processes.world_size
        self._device, self._cast, self._scales_loss = processes.device, cast, scales_loss

    def wrap(self, model: nn.Module, optimizer: OptimizerFactory) -> None:
        """Copy the model of rank 0 to all processes and make the optimizer."""
        self._model = model.to(self._device)
        # Buffers (rotary frequencies) are the same everywhere and do not change: they are not sent at every step.
        self._parallel = DistributedDataParallel(
            self._model,
            device_ids=[self._device] if self._device.type == "cuda" else None,
            broadcast_buffers=False,
            gradient_as_bucket_view=True,
        )
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
        """See `Strategy.step`. DDP averages over processes, so the losses are multiplied by their number."""
        total = accumulate(
            self._parallel,
            micro_batches,
            objective,
            cast=self._cast,
            backward=self._update.backward,
            scale=self.data_size / units,
            alone=self._parallel.no_sync,
        )
        norm = self._update.apply(learning_rate=learning_rate, max_grad_norm=max_grad_norm)
        dist.all_reduce(total)
        return StepResult(loss=float(total) / units, grad_norm=float(norm))

    def evaluate(self, micro_batches: Sequence[Batch], objective: Objective) -> float:
        """See `Strategy.evaluate`."""
        return loss_sum_of_all(self._model, micro_batches, objective, self._cast)

    def state(self) -> dict[str, Any]:
        """See `Strategy.state`."""
        return replica_state(self._model, self._update)

    def restore(self, state: dict[str, Any]) -> None:
        """See `Strategy.restore`."""
        restore_replica(self._model, self._update, state)

    def gather(self, *, keep: bool, dtype: torch.dtype | None, whole: bool) -> dict[str, Tensor]:
        """See `weights.gather`."""
        return weights.gather(self._model, keep=keep, dtype=dtype, whole=whole)
