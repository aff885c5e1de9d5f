"""The control groups of the node tier: one group of ours in every hierarchy, under which the kubelet makes its own.

Works with the older layout (one mounted hierarchy a controller) and with the unified one.
"""

from __future__ import annotations

import contextlib
import os
import signal
from functools import partial
from pathlib import Path

from e2e.cluster.wait import wait_for


def hierarchies(mounts: str) -> list[Path]:
    """The mount points of all hierarchies, from the text of /proc/self/mounts."""
    rows = [line.split() for line in mounts.splitlines()]
    return [Path(row[1]) for row in rows if row[2] in ("cgroup", "cgroup2")]


def groups(name: str) -> list[Path]:
    """Our group in every hierarchy, made or not."""
    return [root / name for root in hierarchies(Path("/proc/self/mounts").read_text())]


def create(name: str) -> None:
    """Make our group everywhere, unless it is there."""
    for group in groups(name):
        group.mkdir(exist_ok=True)
        # In the older cpuset hierarchy a new group is empty and could hold no process.
        for resource in ("cpuset.cpus", "cpuset.mems"):
            own, parent = group / resource, group.parent / resource
            if own.exists() and parent.exists() and not own.read_text().strip():
                own.write_text(parent.read_text())


def processes(name: str) -> set[int]:
    """The processes in our groups."""
    found: set[int] = set()
    for group in groups(name):
        # os.walk passes over a group that is removed meanwhile; Path.rglob raises.
        for directory, _, _ in os.walk(group):
            with contextlib.suppress(OSError):
                found.update(int(line) for line in Path(directory, "cgroup.procs").read_text().split())
    return found


def kill(name: str) -> None:
    """Kill every process in our groups, and wait until they are gone."""

    def empty() -> bool:
        for pid in (left := processes(name)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return not left

    wait_for(f"end of every process in the cgroup {name}", empty, 20)


def remove(name: str) -> None:
    """Remove our groups, in which nothing runs any more."""
    for group in groups(name):
        if group.exists():
            wait_for(f"removal of {group}", partial(_remove_tree, group), 10)


def _remove_tree(group: Path) -> bool:
    # Only directories: the files in them belong to the kernel.
    for directory, _, _ in os.walk(group, topdown=False):
        try:
            Path(directory).rmdir()
        except FileNotFoundError:
            continue
        except OSError:
            return False
    return True
