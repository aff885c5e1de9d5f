"""Further numbers of a step, summed on the device and over the processes, and read once."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor


class Means:
    """Means over the units that all processes saw since they were last read; evaluation is left out.

    Every process adds the same names before each reading.
    """

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._units = 0

    def add(self, units: int, **sums: Tensor) -> None:
        """Sums over the units of one micro batch."""
        if not torch.is_grad_enabled():
            return
        self._units += units
        for name, value in sums.items():
            detached = value.detach().float()
            self._sums[name] = self._sums[name] + detached if name in self._sums else detached

    def take(self) -> dict[str, float]:
        """The means; from here on they start anew. All processes call it together."""
        if not self._sums:
            return {}
        names, values = list(self._sums), list(self._sums.values())
        sums = torch.stack([*values, values[0].new_tensor(self._units)])
        self._sums, self._units = {}, 0
        if dist.is_initialized():
            dist.all_reduce(sums)
        *totals, units = sums.tolist()
        return {name: total / max(1, units) for name, total in zip(names, totals, strict=True)}
