"""Waiting on a condition instead of for a time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from e2e.cluster.errors import ClusterError

T = TypeVar("T")


def wait_for(
    what: str,
    check: Callable[[], T],
    timeout: float,
    *,
    interval: float = 0.05,
    hint: Callable[[], str] = lambda: "",
) -> T:
    """Poll `check` until it returns something true, and return that.

    After `timeout` seconds raise ClusterError naming `what`, ending with `hint()` (say, the tail of a log).
    A ClusterError from `check` itself ends the wait at once.
    """
    deadline = time.monotonic() + timeout
    while not (value := check()):
        if time.monotonic() > deadline:
            raise ClusterError(f"{what}: not so after {timeout:.0f} s. {hint()}".rstrip())
        time.sleep(interval)
    return value
