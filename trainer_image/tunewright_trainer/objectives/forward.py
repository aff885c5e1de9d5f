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
        hidden: Shape (rows, kept, hidden size): what the head reads, if it was asked for.
    """

    positions: Tensor
    targets: Tensor
    logits: Tensor
    hidden: Tensor | None = None


def predict(model: nn.Module, batch: Batch, *, hidden: bool = False) -> Predictions:
    """Run the model where the batch has something to predict."""
    positions, targets = counted(batch.labels)
    # transformers keeps the outputs of all layers for this; autograd holds them anyway.
    wanted = {"output_hidden_states": True} if hidden else {}
    if skips_positions(model):
        output = model(**batch.inputs, **wanted, logits_to_keep=positions, use_cache=False)
        logits = output.logits
    else:
        output = model(**batch.inputs, **wanted, use_cache=False)
        logits = output.logits[:, positions]
    return Predictions(positions, targets, logits, output.hidden_states[-1][:, positions] if hidden else None)


def counted(labels: Tensor) -> tuple[Tensor, Tensor]:
    """(positions, targets) of labels that are not shifted; one position is kept even if nothing counts."""
    following = torch.full_like(labels, IGNORED)
    following[:, :-1] = labels[:, 1:]
    positions = (following != IGNORED).any(dim=0).nonzero().squeeze(1)
    if not len(positions):
        positions = positions.new_zeros(1)
    return positions, following[:, positions]


def bare(model: nn.Module) -> nn.Module:
    """The transformers model inside wrappers of DDP, DeepSpeed, torch.compile and peft."""
    while True:
        inner = getattr(model, "module", None) or getattr(model, "_orig_mod", None)
        if inner is None and hasattr(model, "get_base_model"):
            inner = model.get_base_model()
        if not isinstance(inner, nn.Module):
            return model
        model = inner


def skips_positions(model: nn.Module) -> bool:
    """Whether the architecture computes logits only where it is asked to (`logits_to_keep`)."""
    return _has_logits_to_keep(bare(model).__class__.forward)


@cache
def _has_logits_to_keep(forward: Callable[..., Any]) -> bool:
    return "logits_to_keep" in inspect.signature(forward).parameters
