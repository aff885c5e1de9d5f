"""One optimizer step on whole parameters: what a single process and data parallelism share."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim import Optimizer

from tunewright_trainer.objectives.objective import Batch, Objective

Cast = Callable[[], AbstractContextManager[Any]]
"""Makes the context in which forward passes compute."""


def casting(device: torch.device, dtype: torch.dtype | None) -> Cast:
    """Autocast to `dtype`; without one, nothing. It is left after each forward, which frees the cast weights."""
    if dtype is None:
        return contextlib.nullcontext
    return lambda: torch.autocast(device.type, dtype=dtype)


def accumulate(
    model: nn.Module,
    micro_batches: Sequence[Batch],
    objective: Objective,
    *,
    cast: Cast,
    backward: Callable[[Tensor], object],
    scale: float,
    alone: Callable[[], AbstractContextManager[Any]] = contextlib.nullcontext,
) -> Tensor:
    """Gradients of scale x (sum of the losses) + penalty, one micro batch at a time.

    Args:
        model: Called by the objective.
        micro_batches: At least one.
        objective: What is minimised.
        cast: Context of the forward passes.
        backward: Takes a loss; `Tensor.backward`, or that of a gradient scaler or an engine.
        scale: Factor of the losses.
        alone: Context of every micro batch but the last one: gradients are not exchanged there.

    Returns:
        The sum of the losses, unscaled: an fp32 scalar on the device.
    """
    total: Tensor | None = None
    for index, batch in enumerate(micro_batches):
        last = index == len(micro_batches) - 1
        with contextlib.nullcontext() if last else alone():
            with cast():
                loss = objective.loss(model, batch)
            term = loss * scale
            penalty = objective.penalty(model) if last else None
            backward(term if penalty is None else term + penalty)
        total = loss.detach() if total is None else total + loss.detach()
    assert total is not None
    return total


def loss_sum(model: nn.Module, micro_batches: Sequence[Batch], objective: Objective, cast: Cast) -> Tensor:
    """The sum of the losses in evaluation mode: an fp32 scalar on the device."""
    with torch.no_grad(), evaluating(model), cast():
        return torch.stack([objective.loss(model, batch) for batch in micro_batches]).sum()


def loss_sum_of_all(model: nn.Module, micro_batches: Sequence[Batch], objective: Objective, cast: Cast) -> float:
    """`loss_sum`, added up over all processes, each of which has records of its own."""
    total = loss_sum(model, micro_batches, objective, cast)
    dist.all_reduce(total)
    return float(total)


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """No dropout inside."""
    model.eval()
    try:
        yield
    finally:
        model.train()


def set_learning_rate(optimizer: Optimizer, learning_rate: float) -> None:
    """Of every group; a group may have a factor of its own, `lr_scale`."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate * group.get("lr_scale", 1.0)


class Update:
    """Clip, update, forget the gradients; with loss scaling for fp16.

    A step whose scaled gradients overflowed changes nothing and halves the scale; its gradient norm is no number.
    """

    def __init__(self, optimizer: Optimizer, device: torch.device, *, scales_loss: bool) -> None:
        self.optimizer = optimizer
        self._scaler = torch.amp.GradScaler(device.type, enabled=scales_loss)
        self._parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of a loss."""
        self._scaler.scale(loss).backward()

    def apply(self, *, learning_rate: float, max_grad_norm: float) -> Tensor:
        """Update with the gradients that were added up: their norm before clipping."""
        set_learning_rate(self.optimizer, learning_rate)
        self._scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(self._parameters, max_grad_norm)
        self._scaler.step(self.optimizer)
        self._scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        return norm

    def state(self) -> dict[str, Any]:
        """Of optimizer and loss scale."""
        return {"optimizer": self.optimizer.state_dict(), "scaler": self._scaler.state_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        """Take back what `state` gave."""
        self.optimizer.load_state_dict(state["optimizer"])
        self._scaler.load_state_dict(state["scaler"])
