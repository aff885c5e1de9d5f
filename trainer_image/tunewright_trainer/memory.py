"""How much memory this process holds."""

import os
import resource
from pathlib import Path

import torch

_STATM = Path("/proc/self/statm")


def held_bytes(device: torch.device) -> tuple[int, int]:
    """(now, the most so far): tensors on a GPU, resident memory of the process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device), torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    try:
        return int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGESIZE"), peak
    except OSError:
        return peak, peak
