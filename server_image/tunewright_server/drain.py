"""Let running requests end after SIGTERM."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from tunewright_server.client import EngineError
from tunewright_server.settings import Settings


@dataclass(frozen=True)
class Drained:
    """How a drain ended: after how long, with how many requests still running (None: vLLM did not say)."""

    seconds: float
    left: int | None

    @property
    def clean(self) -> bool:
        """Whether every request was answered."""
        return self.left == 0


async def drain(
    in_flight: Callable[[], Awaitable[int]],
    limit: float,
    settings: Settings,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> Drained:
    """Wait until no request has run for `settings.drain_idle` seconds, at least drain_min, at most `limit`."""
    start = clock()
    idle_since: float | None = None
    left: int | None = None
    while True:
        try:
            left = await in_flight()
        except EngineError:
            left = None
        now = clock()
        idle_since = None if left != 0 else (now if idle_since is None else idle_since)
        idle = idle_since is not None and now - idle_since >= settings.drain_idle
        if now - start >= limit or (idle and now - start >= settings.drain_min):
            return Drained(now - start, left)
        await sleep(settings.drain_poll)
