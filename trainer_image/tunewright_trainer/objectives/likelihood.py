"""Log-likelihoods and divergences over a large vocabulary without fp32 copies of the logits.

Logits are (positions x vocabulary): at 8192 positions and 128k tokens 2 GiB in bf16. Autograd's own functions would
keep an fp32 softmax of that size from forward to backward. These keep the logits only, in their own dtype, and pass
over them in chunks, in fp32.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from tunewright_trainer.objectives.objective import IGNORED

CHUNK_ELEMENTS = 1 << 24
"""Logits that are held in fp32 at a time: 64 MiB."""


def token_log_probs(logits: Tensor, targets: Tensor) -> Tensor:
    """log softmax(logits)[target] in nats, fp32; 0 where the target is IGNORED.

    Args:
        logits: Shape (…, vocabulary), any float dtype.
        targets: Shape (…), aligned: targets[i] is what logits[i] predict.
    """
    values: Tensor = _TokenLogProbs.apply(logits.flatten(0, -2), targets.flatten())
    return values.view(targets.shape)


def cross_entropy_sum(logits: Tensor, targets: Tensor) -> Tensor:
    """Sum of -log softmax(logits)[target] over the targets that are not IGNORED: an fp32 scalar."""
    return -token_log_probs(logits, targets).sum()


def softened_kl_sum(student: Tensor, teacher: Tensor, targets: Tensor, temperature: float) -> Tensor:
    """Sum over the targets that are not IGNORED of T^2 x KL(softmax(teacher / T) || softmax(student / T)), in fp32.

    T^2 keeps the gradient's size as T grows (Hinton et al. 2015, section 2). No gradient reaches the teacher.

    Args:
        student: Shape (…, vocabulary).
        teacher: As student.
        targets: Shape (…).
        temperature: T.
    """
    loss: Tensor = _SoftenedKl.apply(
        student.flatten(0, -2), teacher.flatten(0, -2).detach(), targets.flatten() != IGNORED, temperature
    )
    return loss


def chunks(logits: Tensor) -> list[slice]:
    """Ranges of rows of (rows, vocabulary) that fit CHUNK_ELEMENTS."""
    rows, vocabulary = logits.shape
    size = max(1, CHUNK_ELEMENTS // vocabulary)
    return [slice(start, min(start + size, rows)) for start in range(0, rows, size)]


class _TokenLogProbs(torch.autograd.Function):  # type: ignore[misc]
    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor) -> Tensor:
        normaliser = torch.empty(len(logits), dtype=torch.float32, device=logits.device)
        values = torch.empty_like(normaliser)
        for rows in chunks(logits):
            part, wanted = logits[rows].float(), targets[rows]
            normaliser[rows] = part.logsumexp(dim=1)
            chosen = part.gather(1, wanted.clamp(min=0).unsqueeze(1)).squeeze(1)
            values[rows] = (chosen - normaliser[rows]).masked_fill(wanted == IGNORED, 0)
        ctx.save_for_backward(logits, targets, normaliser)
        return values

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:
        """d log p(target) / d logits = one_hot(target) - softmax(logits)."""
        logits, targets, normaliser = ctx.saved_tensors
        factor = upstream.masked_fill(targets == IGNORED, 0)
        gradient = torch.empty_like(logits)
        for rows in chunks(logits):
            scale = factor[rows].unsqueeze(1)
            part = logits[rows].to(torch.float32, copy=True).sub_(normaliser[rows].unsqueeze(1)).exp_().mul_(-scale)
            gradient[rows] = part.scatter_add_(1, targets[rows].clamp(min=0).unsqueeze(1), scale)
        return gradient, None


class _SoftenedKl(torch.autograd.Function):  # type: ignore[misc]
    @staticmethod
    def forward(ctx: Any, student: Tensor, teacher: Tensor, counts: Tensor, temperature: float) -> Tensor:
        total = torch.zeros((), dtype=torch.float32, device=student.device)
        for rows in chunks(student):
            wanted = (teacher[rows].float() / temperature).log_softmax(dim=1)
            given = (student[rows].float() / temperature).log_softmax(dim=1)
            divergence = (wanted.exp() * (wanted - given)).sum(dim=1)
            total += divergence.masked_fill(~counts[rows], 0).sum()
        ctx.save_for_backward(student, teacher, counts)
        ctx.temperature = temperature
        return total * temperature**2

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None, None]:
        """d/d student = T^2 x 1/T x (softmax(student / T) - softmax(teacher / T))."""
        student, teacher, counts = ctx.saved_tensors
        temperature: float = ctx.temperature
        gradient = torch.empty_like(student)
        for rows in chunks(student):
            part = (student[rows].float() / temperature).softmax(dim=1)
            part.sub_((teacher[rows].float() / temperature).softmax(dim=1)).mul_(temperature * upstream)
            gradient[rows] = part.masked_fill_(~counts[rows].unsqueeze(1), 0)
        return gradient, None, None, None
