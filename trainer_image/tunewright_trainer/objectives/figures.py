"""Further numbers of a step, summed on the device and read once."""

from __future__ import annotations

import torch
from torch import Tensor


class Means:
    """Means over the units that this process saw since they were last read; evaluation is left out."""

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
        """The means; from here on they start anew."""
        means = {name: float(total) / max(1, self._units) for name, total in self._sums.items()}
        self._sums, self._units = {}, 0
        return means
