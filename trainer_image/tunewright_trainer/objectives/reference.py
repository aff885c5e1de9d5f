"""What the model says about the pairs before it is trained: DPO's reference, measured once per run and kept.

No second model is held: before the first step the model itself, without its adapter, is the reference. The strategy
does the forward passes, so that sharded and divided models are measured as they are trained.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from tunewright_trainer import log
from tunewright_trainer.files import replace_file
from tunewright_trainer.objectives.dpo import REFERENCE, answer_log_probs
from tunewright_trainer.objectives.objective import Batch
from tunewright_trainer.parallel.strategy import Strategy
from tunewright_trainer.processes import Processes
from tunewright_trainer.validation import Validation

_NUMBERS = "numbers"


class Positions(Protocol):
    """Which record is at a position."""

    def __getitem__(self, position: int, /) -> int:
        """Number of the record."""
        ...


class Pairs(Protocol):
    """A `loader.BatchSource` over records with an order."""

    @property
    def order(self) -> Positions:
        """Position -> record."""
        ...

    def batch(self, positions: range) -> Batch:
        """The pairs at these positions."""
        ...


class ReferencedPairs:
    """A `loader.BatchSource`: pairs with what the reference says about them.

    Args:
        pairs: The pairs.
        reference: Shape (2, records): log-probabilities of the chosen answers, then of the rejected ones.
    """

    def __init__(self, pairs: Pairs, reference: Tensor) -> None:
        self._pairs, self._reference = pairs, reference

    def batch(self, positions: range) -> Batch:
        """The pairs at these positions."""
        numbers = [self._pairs.order[position] for position in positions]
        return replace(self._pairs.batch(positions), extra={REFERENCE: self._reference[:, numbers]})


def measure_reference(
    every: Pairs,
    records: int,
    cache: Path,
    *,
    model: nn.Module,
    micro_batch: int,
    strategy: Strategy,
    processes: Processes,
) -> Tensor:
    """Log-probabilities of all answers, shape (2, records), fp32 on the CPU; all ranks call it together.

    Args:
        every: Position p is record p.
        records: How many there are.
        cache: File that keeps them: a resumed run has another model already.
        model: What the strategy holds; its adapter is switched off meanwhile.
        micro_batch: Pairs per forward pass.
        strategy: Before the first step.
        processes: All of them.
    """
    if processes.from_first(int(cache.is_file())):
        return torch.from_numpy(np.load(cache))
    if not processes.rank:
        log.info("measuring the reference", pairs=records)
    recorder = _Recorder(records)
    measured = Validation(
        _Numbered(every), records, micro_batch, strategy=strategy, objective=recorder, processes=processes
    )
    without_adapter: Callable[[], AbstractContextManager[object]] = getattr(model, "disable_adapter", nullcontext)
    with without_adapter():
        measured.loss()
    if dist.is_initialized():
        # Each pair was measured by one process, or by the copies of one: elsewhere it is 0.
        dist.all_reduce(recorder.values, group=processes.control)
        dist.all_reduce(recorder.times, group=processes.control)
    reference = recorder.values / recorder.times
    if not processes.rank:
        with replace_file(cache) as temporary, temporary.open("wb") as file:
            np.save(file, reference.numpy())
    processes.meet()
    return reference


class _Numbered:
    """Pairs that know their number."""

    def __init__(self, pairs: Pairs) -> None:
        self._pairs = pairs

    def batch(self, positions: range) -> Batch:
        return replace(self._pairs.batch(positions), extra={_NUMBERS: torch.tensor(positions)})


class _Recorder:
    """An `Objective` that only looks: shape (2, records) of sums, and how many times each was measured."""

    def __init__(self, records: int) -> None:
        self.values, self.times = torch.zeros((2, records)), torch.zeros(records)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        logs = answer_log_probs(model, batch)
        if batch.units:
            numbers = batch.extra[_NUMBERS].cpu()
            self.values[:, numbers] = logs.detach().float().cpu()
            self.times[numbers] = 1
        return logs.sum()

    def penalty(self, model: nn.Module) -> Tensor | None:
        return None

    def figures(self) -> dict[str, float]:
        return {}
