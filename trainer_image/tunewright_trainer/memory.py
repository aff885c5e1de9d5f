"""How much memory this process holds."""

import os
import resource
from pathlib import Path

import torch

_STATM = Path("/proc/self/statm")


def device_bytes(device: torch.device) -> int | None:
    """What a GPU has; None for a CPU, whose memory is shared with others."""
    return int(torch.cuda.get_device_properties(device).total_memory) if device.type == "cuda" else None


def held_bytes(device: torch.device) -> tuple[int, int]:
    """(now, the most so far): tensors on a GPU, resident memory of the process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device), torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    try:
        now = int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGESIZE")
        # The kernel updates the peak later than the present.
        return now, max(now, peak)
    except OSError:
        return peak, peak
