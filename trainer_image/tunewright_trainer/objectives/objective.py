"""What every objective offers to the loop: a sum over units, so that the mean over a global batch is exact."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor, nn

IGNORED = -100
"""Label of a position that the loss does not count (torch.nn.CrossEntropyLoss.ignore_index)."""


@dataclass(frozen=True)
class Batch:
    """One micro batch on the device.

    Attributes:
        inputs: Arguments of the model's forward; `input_ids` of shape (rows, length) among them.
        labels: Shape (rows, length): the token to predict at each position (not shifted), or IGNORED.
        units: What the objective averages over: assistant tokens that are predicted, or pairs.
        tokens: Tokens read, padding left out.
        samples: Records in it: as many as rows, unless rows are packed.
        extra: What the objective needs beside the labels, and the model does not read.
    """

    inputs: dict[str, Any]
    labels: Tensor
    units: int
    tokens: int
    samples: int
    extra: dict[str, Tensor] = field(default_factory=dict)


class Objective(Protocol):
    """A loss over units, and what is added once per optimizer step."""

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Sum over the units of the micro batch: an fp32 scalar with a graph."""
        ...

    def penalty(self, model: nn.Module) -> Tensor | None:
        """A term that does not depend on the batch, added once per optimizer step; None if there is none."""
        ...

    def figures(self) -> dict[str, float]:
        """Further numbers of the last step, over the global batch, for the log; all processes call it together."""
        ...
