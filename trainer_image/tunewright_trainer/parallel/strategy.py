"""What every parallelism offers to the loop. The loop knows nothing else of processes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn
from torch.optim import Optimizer

from tunewright_trainer.objectives.objective import Batch, Objective

OptimizerFactory = Callable[[Iterable[tuple[str, nn.Parameter]]], Optimizer]
"""Named trainable parameters -> optimizer. A strategy calls it once the parameters are what they stay."""


@dataclass(frozen=True)
class StepResult:
    """One optimizer step, the same on every rank.

    Attributes:
        loss: Mean over the units of the global batch, penalty left out.
        grad_norm: L2 norm of the whole gradient before clipping.
    """

    loss: float
    grad_norm: float


class Strategy(Protocol):
    """How the processes of a run share each optimizer step.

    It is made before the model, because ZeRO-3 makes transformers shard the weights while it loads them.

    Attributes:
        data_rank: Position among the processes that read different records.
        data_size: Number of them; processes that share one copy of the model read the same records.
        state_rank: Rank that saves the training state which this rank takes back: itself, or the first of its
            replicas.
    """

    data_rank: int
    data_size: int
    state_rank: int

    def wrap(self, model: nn.Module, optimizer: OptimizerFactory) -> None:
        """Take the model over: place, shard or divide it, and make the optimizer."""
        ...

    def step(
        self,
        micro_batches: Sequence[Batch],
        objective: Objective,
        *,
        units: int,
        learning_rate: float,
        max_grad_norm: float,
    ) -> StepResult:
        """Forward, backward, clip and update.

        Args:
            micro_batches: What this process read: gradientAccumulationSteps micro batches.
            objective: What is minimised.
            units: Units of the global batch, over all processes: the loss is divided by it.
            learning_rate: Of this step, before the factors of parameter groups.
            max_grad_norm: Gradients are clipped to this norm.
        """
        ...

    def evaluate(self, micro_batches: Sequence[Batch], objective: Objective) -> float:
        """Sum of the loss over the micro batches of all processes, without gradients; all of them call it."""
        ...

    def state(self) -> dict[str, Any]:
        """This rank's share of trainable weights and optimizer state.

        Nested dictionaries and lists of plain tensors (local shards, no DTensor), numbers, strings and None, so that
        torch.load reads it with weights_only. The tensors are the live ones: the checkpointer copies them before the
        next step. All ranks call it together; what `state_rank` says is saved.
        """
        ...

    def restore(self, state: dict[str, Any]) -> None:
        """Take back what `state` gave, with the same number of processes; all ranks call it together."""
        ...

    def gather(self, *, keep: bool, dtype: object | None, whole: bool) -> dict[str, Tensor]:
        """Tensors by name on the CPU, for ranks with `keep`; all ranks take part. See `weights.gather`."""
        ...
