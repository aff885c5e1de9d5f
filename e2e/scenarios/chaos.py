"""Killing what runs in a pod of the local node, from outside, as the kernel or a power cut would."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

PAUSE = "pause"


def container_processes(pod: dict[str, Any]) -> list[int]:
    """Process ids of a pod's containers on this machine, without the one that holds its sandbox."""
    uid = pod["metadata"]["uid"]
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            cgroup = (entry / "cgroup").read_text()
            name = (entry / "comm").read_text().strip()
        except OSError:
            continue  # it ended while we looked
        if (f"pod{uid}" in cgroup or f"pod{uid.replace('-', '_')}" in cgroup) and name != PAUSE:
            found.append(int(entry.name))
    return found


def kill_pod(pod: dict[str, Any]) -> int:
    """SIGKILL every process of the pod's containers; returns how many there were."""
    processes = container_processes(pod)
    for process in processes:
        try:
            os.kill(process, signal.SIGKILL)
        except ProcessLookupError:
            continue  # its parent's death took it along
    return len(processes)
