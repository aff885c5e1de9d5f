"""Facts of the container that are read from cgroups: how many CPUs it may use, how often the kernel killed in it."""

import math
import os
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")


def available_cpus(root: Path = _CGROUPS) -> int:
    """CPUs this container may use: the smaller of its quota, rounded up, and its affinity."""
    affinity = len(os.sched_getaffinity(0))
    quota = _quota(root)
    return affinity if quota is None else max(1, min(affinity, math.ceil(quota)))


def oom_kills(root: Path = _CGROUPS) -> int:
    """Processes of this container that the kernel has killed for memory; 0 where that cannot be known."""
    for name in ("memory.events", "memory/memory.oom_control"):
        for line in _read(root / name).splitlines():
            key, _, value = line.partition(" ")
            if key == "oom_kill":
                return int(value)
    return 0


def _quota(root: Path) -> float | None:
    """CPUs by the CFS quota of cgroup v2, else v1; None without one."""
    v2 = _read(root / "cpu.max").split()
    if len(v2) == 2 and v2[0] != "max":
        return int(v2[0]) / int(v2[1])
    quota, period = (_read(root / "cpu" / f"cpu.cfs_{name}_us").strip() for name in ("quota", "period"))
    if quota and period and int(quota) > 0:
        return int(quota) / int(period)
    return None


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
