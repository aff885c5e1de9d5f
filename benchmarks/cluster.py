"""How long the throw-away clusters take to start, everything cached: `make bench-cluster`.

Prints the median and range of five starts of the apiserver tier, and one start and stop of the full node (as root, and
only where none is up).
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from e2e.cluster import build
from e2e.cluster.apiserver import start_apiserver
from e2e.cluster.local import LocalCluster
from e2e.cluster.progress import step

RUNS = 5


@contextmanager
def timed(seconds: list[float]) -> Iterator[None]:
    """Append the seconds that the block takes."""
    started = time.perf_counter()
    yield
    seconds.append(time.perf_counter() - started)


def main() -> None:
    """Measure and print."""
    build.ensure(build.APISERVER_TIER)
    starts: list[float] = []
    for _ in range(RUNS):
        with tempfile.TemporaryDirectory() as directory:
            with timed(starts):
                plane = start_apiserver(Path(directory, "plane"))
            plane.stop()
    load = os.getloadavg()[0]
    print(
        f"apiserver tier: median {statistics.median(starts):.1f} s ({min(starts):.1f} to {max(starts):.1f}), "
        f"{RUNS} runs, {os.cpu_count()} cores, load {load:.1f}"
    )
    cluster = LocalCluster()
    if os.geteuid() != 0 or cluster.is_up():
        print("full node: not measured (needs root, and no cluster that is up)")
        return
    up: list[float] = []
    down: list[float] = []
    with timed(up):
        cluster.up(step)
    with timed(down):
        cluster.down(step)
    print(f"full node: up {up[0]:.1f} s, down {down[0]:.1f} s, {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
