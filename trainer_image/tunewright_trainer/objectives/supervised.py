"""Cross entropy on what the assistant wrote."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from tunewright_trainer.objectives.forward import predict
from tunewright_trainer.objectives.objective import IGNORED, Batch

CHUNK_ELEMENTS = 1 << 24
"""Logits that are held in fp32 at a time: 64 MiB."""


class Supervised:
    """Sum over the assistant's tokens of -log p(token | everything before it), in nats."""

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Sum over the micro batch: an fp32 scalar."""
        predictions = predict(model, batch)
        return cross_entropy_sum(predictions.logits, predictions.targets)

    def penalty(self, model: nn.Module) -> Tensor | None:
        """None."""
        return None

    def figures(self) -> dict[str, float]:
        """Nothing beyond the loss."""
        return {}


def cross_entropy_sum(logits: Tensor, targets: Tensor) -> Tensor:
    """Sum of -log softmax(logits)[target] over the targets that are not IGNORED, computed in fp32.

    Args:
        logits: Shape (…, vocabulary), any float dtype; never converted to fp32 as a whole.
        targets: Shape (…), aligned: targets[i] is what logits[i] predict.
    """
    loss: Tensor = _CrossEntropySum.apply(logits.flatten(0, -2), targets.flatten())
    return loss


def chunks(logits: Tensor) -> list[slice]:
    """Ranges of rows of (rows, vocabulary) that fit CHUNK_ELEMENTS."""
    rows, vocabulary = logits.shape
    size = max(1, CHUNK_ELEMENTS // vocabulary)
    return [slice(start, min(start + size, rows)) for start in range(0, rows, size)]


class _CrossEntropySum(torch.autograd.Function):  # type: ignore[misc]
    """Only the logits, in their own dtype, live from forward to backward; autograd would keep an fp32 copy."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor) -> Tensor:
        normaliser = torch.empty(len(logits), dtype=torch.float32, device=logits.device)
        total = torch.zeros((), dtype=torch.float32, device=logits.device)
        for rows in chunks(logits):
            part, wanted = logits[rows].float(), targets[rows]
            normaliser[rows] = part.logsumexp(dim=1)
            chosen = part.gather(1, wanted.clamp(min=0).unsqueeze(1)).squeeze(1)
            total += (normaliser[rows] - chosen).masked_fill(wanted == IGNORED, 0).sum()
        ctx.save_for_backward(logits, targets, normaliser)
        return total

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:
        logits, targets, normaliser = ctx.saved_tensors
        gradient = torch.empty_like(logits)
        for rows in chunks(logits):
            wanted = targets[rows].unsqueeze(1)
            part = (logits[rows].float() - normaliser[rows].unsqueeze(1)).exp_()
            part.scatter_add_(1, wanted.clamp(min=0), torch.full_like(wanted, -1, dtype=part.dtype))
            gradient[rows] = part.masked_fill_(wanted == IGNORED, 0).mul_(upstream)
        return gradient, None
