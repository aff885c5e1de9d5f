"""Addresses for pods that only pretend: every one is local to this machine, and Endpoints may name it.

An apiserver refuses loopback addresses in Endpoints. Linux makes a whole range local with one route of the table
`local` (AnyIP), and a server binds to any address of it. Each process takes a part of the range of its own, so that
test runs side by side never meet: it binds a socket to an abstract name of its network namespace, which the kernel
frees however the process ends.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
from collections.abc import Iterator
from ipaddress import IPv4Network

from e2e.cluster.errors import ClusterError

RANGE = IPv4Network("10.246.0.0/16")
PART_PREFIX = 20  # sixteen parts of 4094 addresses


@contextlib.contextmanager
def pod_addresses() -> Iterator[Iterator[str]]:
    """Make a part of RANGE local while the block runs; `next` of what it yields is an address that nobody else has.

    Raises ClusterError without root, or when every part is taken.
    """
    if os.geteuid() != 0:
        raise ClusterError("Simulated pods with addresses of their own need root: they take a route in `ip route`.")
    holder, part = _take_part()
    with holder:
        _route("replace", part)
        try:
            yield (str(address) for address in part.hosts())
        finally:
            _route("delete", part)


def route_command(action: str, part: IPv4Network) -> list[str]:
    """The command that makes a part local (`replace`, which may be repeated) or undoes it (`delete`)."""
    return ["ip", "route", action, "local", str(part), "dev", "lo"]


def _take_part() -> tuple[socket.socket, IPv4Network]:
    for part in RANGE.subnets(new_prefix=PART_PREFIX):
        holder = socket.socket(socket.AF_UNIX)
        try:
            holder.bind(f"\0tunewright-addresses-{part}")
        except OSError:
            holder.close()
        else:
            return holder, part
    raise ClusterError(f"Every part of {RANGE} is taken: end the other test runs on this machine.")


def _route(action: str, part: IPv4Network) -> None:
    done = subprocess.run(route_command(action, part), capture_output=True, text=True, check=False)
    if done.returncode:
        raise ClusterError(f"`{' '.join(route_command(action, part))}` failed: {done.stderr.strip()}")
