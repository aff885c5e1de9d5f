"""One forward pass, seen as predictions: the logits at the positions that the loss counts, and what comes next there.

The head is the largest matrix product and the largest activation of a small model, and most positions of a
conversation are the user's. So the model is asked for logits only where some row of the batch has a label.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from tunewright_trainer.objectives.objective import IGNORED, Batch


@dataclass(frozen=True)
class Predictions:
    """What a model says about a micro batch.

    Attributes:
        positions: Shape (kept,): the positions that some row counts.
        targets: Shape (rows, kept): the token that follows each position, or IGNORED.
        logits: Shape (rows, kept, vocabulary), in the dtype of the model's computation.
    """

    positions: Tensor
    targets: Tensor
    logits: Tensor


def predict(model: nn.Module, batch: Batch) -> Predictions:
    """Run the model where the batch has something to predict."""
    positions, targets = counted(batch.labels)
    return Predictions(positions, targets, logits_at(model, batch.inputs, positions))


def counted(labels: Tensor) -> tuple[Tensor, Tensor]:
    """(positions, targets) of labels that are not shifted; one position is kept even if nothing counts."""
    following = torch.full_like(labels, IGNORED)
    following[:, :-1] = labels[:, 1:]
    positions = (following != IGNORED).any(dim=0).nonzero().squeeze(1)
    if not len(positions):
        positions = positions.new_zeros(1)
    return positions, following[:, positions]


def logits_at(model: nn.Module, inputs: dict[str, Any], positions: Tensor) -> Tensor:
    """Logits of shape (rows, kept, vocabulary); computed nowhere else where the architecture can skip positions."""
    if _skips(bare(model).__class__.forward):
        logits: Tensor = model(**inputs, logits_to_keep=positions, use_cache=False).logits
        return logits
    return model(**inputs, use_cache=False).logits[:, positions]


def bare(model: nn.Module) -> nn.Module:
    """The transformers model inside wrappers of DDP, DeepSpeed, torch.compile and peft."""
    while True:
        inner = getattr(model, "module", None) or getattr(model, "_orig_mod", None)
        if inner is None and hasattr(model, "peft_config"):
            inner = getattr(model, "base_model", None)
            inner = getattr(inner, "model", inner)
        if not isinstance(inner, nn.Module):
            return model
        model = inner


@cache
def _skips(forward: Callable[..., Any]) -> bool:
    return "logits_to_keep" in inspect.signature(forward).parameters
