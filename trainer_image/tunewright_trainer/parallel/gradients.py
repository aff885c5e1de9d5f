"""Gradients that lie in several processes: added up, measured and clipped."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

BUCKET_ELEMENTS = 50_000_000
"""Elements that are sent at once: large enough for the network's bandwidth, small enough as a second copy."""


def sum_over(gradients: Iterable[Tensor], group: Any) -> None:
    """Replace each gradient by its sum over the processes of a group; they give the same shapes in the same order."""
    by_dtype: dict[torch.dtype, list[Tensor]] = defaultdict(list)
    for gradient in gradients:
        by_dtype[gradient.dtype].append(gradient)
    for same in by_dtype.values():
        for bucket in buckets(same):
            flat = torch.cat([gradient.reshape(-1) for gradient in bucket])
            dist.all_reduce(flat, group=group)
            for gradient, part in zip(bucket, flat.split([gradient.numel() for gradient in bucket]), strict=True):
                gradient.copy_(part.view_as(gradient))


def buckets(tensors: Sequence[Tensor], elements: int = BUCKET_ELEMENTS) -> Iterator[list[Tensor]]:
    """The tensors in their order, in lists of at most `elements` elements, or of one tensor that is larger."""
    bucket: list[Tensor] = []
    size = 0
    for tensor in tensors:
        if bucket and size + tensor.numel() > elements:
            yield bucket
            bucket, size = [], 0
        bucket.append(tensor)
        size += tensor.numel()
    if bucket:
        yield bucket


def squared_norm(gradients: Sequence[Tensor], device: torch.device) -> Tensor:
    """Sum of the squares of all elements that this process holds: an fp32 scalar on the device."""
    if not gradients:
        return torch.zeros((), device=device)
    norms = torch._foreach_norm(list(gradients), 2, dtype=torch.float32)
    return torch.stack([norm.to(device) for norm in norms]).square().sum()


def clip(gradients: Sequence[Tensor], norm: Tensor, max_norm: float) -> None:
    """Multiply by max_norm / norm where that is less than 1 (Pascanu et al. 2013, arXiv:1211.5063).

    The same formula as torch.nn.utils.clip_grad_norm_, with a norm that is known already.
    """
    factor = (max_norm / (norm + 1e-6)).clamp(max=1.0)
    by_device: dict[torch.device, list[Tensor]] = defaultdict(list)
    for gradient in gradients:
        by_device[gradient.device].append(gradient)
    for device, same in by_device.items():
        torch._foreach_mul_(same, factor.to(device))
