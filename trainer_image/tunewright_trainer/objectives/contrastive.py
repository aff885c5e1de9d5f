"""SimCTG: an auxiliary contrastive loss between the tokens of an answer (Su et al. 2022, arXiv:2202.06417, eq. 3).

Language models put the hidden states of different tokens into a narrow cone; decoding then falls into repetition. For
n tokens of one answer with last hidden states h and the margin m

    L = 1 / (n (n - 1)) x sum over i of sum over j != i of max(0, m - cos(h_i, h_i) + cos(h_i, h_j)),  cos(h_i, h_i) = 1

Of the contrastive losses in use it is the one whose negatives are in the same record: it needs neither dropout (which
current models are trained without) nor other records of the micro batch, so that the loss stays the same however a
global batch is divided among processes and micro batches.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from tunewright_trainer.objectives.objective import IGNORED, Batch

BLOCK_ELEMENTS = 1 << 24
"""Similarities that are held at a time: 64 MiB in fp32."""


def contrastive_sum(hidden: Tensor, targets: Tensor, segments: Tensor, margin: float) -> Tensor:
    """n x L, summed over the answers of a micro batch: an fp32 scalar; divided by all tokens it is their mean.

    Args:
        hidden: Shape (rows, kept, hidden size).
        targets: Shape (rows, kept): positions with IGNORED are no tokens of an answer.
        segments: Shape (rows, kept): records of a packed row have different numbers.
        margin: m.
    """
    rows = torch.arange(len(targets), device=targets.device).unsqueeze(1).expand_as(targets)
    wanted = targets != IGNORED
    owners = torch.stack([rows[wanted], segments[wanted]], dim=1)
    states = torch.nn.functional.normalize(hidden[wanted].float(), dim=1)
    _, sizes = torch.unique_consecutive(owners, dim=0, return_counts=True)
    parts = [_one_answer(part, margin) for part in states.split(sizes.tolist()) if len(part) > 1]
    # Without a pair the sum is 0, with a gradient of 0, so that every process has the same graph.
    return torch.stack(parts).sum() if parts else states.sum() * 0


def segments_of(batch: Batch, positions: Tensor) -> Tensor:
    """Shape (rows, kept): which record of its row a position belongs to. A packed row restarts its position_ids."""
    restarts = batch.inputs.get("position_ids")
    if restarts is None:
        return torch.zeros((len(batch.labels), len(positions)), dtype=torch.long, device=batch.labels.device)
    numbers = (restarts == 0).long().cumsum(dim=-1)
    return numbers[..., positions].expand(len(batch.labels), -1)


def _one_answer(states: Tensor, margin: float) -> Tensor:
    """Sum over i of the mean over j != i of max(0, m - 1 + cos(h_i, h_j)), for states of length 1."""
    size = max(1, BLOCK_ELEMENTS // len(states))
    total = states.new_zeros(())
    for start in range(0, len(states), size):
        total = total + checkpoint(_block, states, start, size, margin, use_reentrant=False)
    return total / (len(states) - 1)


def _block(states: Tensor, start: int, size: int, margin: float) -> Tensor:
    with torch.autocast(states.device.type, enabled=False):
        excess = (states[start : start + size] @ states.T + (margin - 1)).clamp(min=0)
    # A token is no negative of itself.
    return excess.sum() - excess.diagonal(start).sum()
