"""The processes of a run: who they are, how they meet, and what they agree on between two steps."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from tunewright_trainer.timeouts import seconds

COLLECTIVE_TIMEOUT_ENV = "TUNEWRIGHT_COLLECTIVE_TIMEOUT"
COLLECTIVE_TIMEOUT = 600
"""Seconds after which a collective without an answer counts as a lost peer (a node that vanished without closing
its connections). A process that dies is noticed at once by gloo."""

SAVING_TIMEOUT = timedelta(hours=1)
"""How long the first rank that wrote its part of a checkpoint waits for the last one, while training goes on; and how
long all wait for rank 0 to write the trained weights."""

ALONE = (
    ("RANK", "0"),
    ("WORLD_SIZE", "1"),
    ("LOCAL_RANK", "0"),
    ("LOCAL_WORLD_SIZE", "1"),
    ("MASTER_ADDR", "127.0.0.1"),
    ("MASTER_PORT", "0"),
)
"""What torchrun sets, for a process that was started without it."""


@dataclass(frozen=True)
class Processes:
    """This process among the others.

    Attributes:
        device: Where its model lives.
        rank: Global rank.
        world_size: Processes of the run.
        local_rank: Rank in its pod; the GPU that it uses.
        control: Group for a few numbers between two steps; on the CPU, so that it never waits for a GPU.
        saving: Group of the thread that writes checkpoints, and of the wait for the end when there are no more of
            them: two threads must not share a group.
    """

    device: torch.device
    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    control: Any = None
    saving: Any = None

    def total(self, numbers: Sequence[int]) -> list[int]:
        """Each number, summed over all processes."""
        if not dist.is_initialized():
            return list(numbers)
        tensor = torch.tensor(numbers, dtype=torch.int64)
        dist.all_reduce(tensor, group=self.control)
        return [int(number) for number in tensor.tolist()]

    def from_first(self, number: int) -> int:
        """The number of rank 0."""
        if not dist.is_initialized():
            return number
        tensor = torch.tensor([number], dtype=torch.int64)
        dist.broadcast(tensor, src=0, group=self.control)
        return int(tensor.item())

    def meet(self, group: Any = None) -> None:
        """Wait for all processes, as long as the group does: `control` if none is given."""
        if dist.is_initialized():
            dist.barrier(group=group or self.control)


def collective_timeout() -> float:
    """Seconds.

    Raises:
        StageError: INVALID_CONFIG for what is no number of them.
    """
    return seconds(os.environ, COLLECTIVE_TIMEOUT_ENV, COLLECTIVE_TIMEOUT)


def join(*, distributed: bool) -> Processes:
    """Find out who this process is; with `distributed` join the process group: gloo on CPUs, NCCL on GPUs."""
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    device = torch.device("cuda", local_rank) if torch.cuda.is_available() else torch.device("cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if not distributed:
        return Processes(device=device)
    for name, value in ALONE:
        os.environ.setdefault(name, value)
    timeout = timedelta(seconds=collective_timeout())
    dist.init_process_group(
        "nccl" if device.type == "cuda" else "gloo",
        timeout=timeout,
        device_id=device if device.type == "cuda" else None,
    )
    return Processes(
        rank=dist.get_rank(),
        world_size=dist.get_world_size(),
        local_rank=local_rank,
        device=device,
        control=dist.new_group(backend="gloo", timeout=timeout),
        saving=dist.new_group(backend="gloo", timeout=SAVING_TIMEOUT),
    )
