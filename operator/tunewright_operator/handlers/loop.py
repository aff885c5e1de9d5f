"""The one loop that every object of every kind runs: reconcile, write the status, tell, sleep.

It never ends by itself and never raises: an error is logged, counted and retried with a growing delay.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from time import monotonic
from typing import Any

from tunewright_api.rollout_status import Analysis
from tunewright_operator.config import OperatorConfig
from tunewright_operator.handlers.wakeups import Key
from tunewright_operator.kube.errors import Conflict, KubeError, NotFound, Transient
from tunewright_operator.kube.protocol import Kube
from tunewright_operator.metrics import Metrics
from tunewright_operator.reconcile.events import compute_events
from tunewright_operator.reconcile.result import Check, Children, Event, Result
from tunewright_operator.status.durations import finished_stages, new_restarts

Manifest = dict[str, Any]
Reconcile = Callable[[Kube, OperatorConfig, Manifest, Children, datetime], Awaitable[Result]]

BACKOFF_FIRST = 1.0
BACKOFF_MAX = 60.0
# Several children often change at once: one look at all of them is enough.
SETTLE_SECONDS = 0.05

logger = logging.getLogger(__name__)


@dataclass
class Loop:
    """One object's loop. `read` and `children` give what the watches last saw; `post` queues an Event.

    The watches lag behind our own writes, so the status that counts is the one this loop wrote last.
    """

    key: Key
    kube: Kube
    config: OperatorConfig
    metrics: Metrics
    reconcile: Reconcile
    read: Callable[[], Manifest]
    children: Callable[[], Children]
    post: Callable[[Event], None]
    _status: Manifest | None = field(default=None, init=False)
    _check: Check | None = field(default=None, init=False)
    _measuring: asyncio.Future[Analysis] | None = field(default=None, init=False)
    _failures: int = field(default=0, init=False)

    async def run(self, wake: asyncio.Event, stopped: Callable[[], bool]) -> None:
        """Go on until `stopped`, which also sets `wake`."""
        try:
            while not stopped():
                wake.clear()  # before reading, so that a change while we reconcile is not lost
                delay = await self.turn()
                await _sleep(wake, delay, self._measuring)
        finally:
            self._stop_measuring()
            self.metrics.forget(self.key)

    async def turn(self) -> float | None:
        """One reconcile with everything around it; returns the seconds to the next one, None to wait for a change."""
        started = monotonic()
        try:
            result = await self._reconcile_once()
        except Exception as error:
            return self._failed(error)
        finally:
            self.metrics.reconcile_seconds.labels(self.key[0]).observe(monotonic() - started)
        self._failures = 0
        return result.requeue_after

    async def _reconcile_once(self) -> Result:
        seen = self.read()
        old: Manifest = self._status if self._status is not None else seen.get("status") or {}
        obj = {**seen, "status": old}
        found = self._found()
        children = replace(self.children(), check=found)
        try:
            result = await self.reconcile(self.kube, self.config, obj, children, datetime.now(UTC))
            if result.status != obj["status"]:
                await self.kube.patch_status(obj, result.status)
                obj["status"] = result.status
        finally:
            # What was written on the way counts, whatever failed after it.
            self._stored(old, obj["status"])
        self._measure(result.check, decided=found is not None)
        return result

    def _found(self) -> Analysis | None:
        """What the check has found, if it is over. Raises what ended it instead; it is then made anew."""
        if self._measuring is None or not self._measuring.done():
            return None
        if error := self._measuring.exception():
            self._stop_measuring()
            raise error
        return self._measuring.result()

    def _measure(self, check: Check | None, *, decided: bool) -> None:
        """Go on with the check that this turn asks for: one that was decided about, or that nobody asks for any more,
        ends."""
        if decided or check != self._check:
            self._stop_measuring()
        if check and self._measuring is None:
            self._check, self._measuring = check, asyncio.ensure_future(check.make())

    def _stop_measuring(self) -> None:
        if self._measuring:
            self._measuring.cancel()
        self._check = self._measuring = None

    def _stored(self, old: Manifest, new: Manifest) -> None:
        if new != old:
            self._status = new
            self.metrics.status_writes.labels(self.key[0]).inc()
            self._tell(old, new)
        self.metrics.observe_status(self.key, new)

    def _tell(self, old: Manifest, new: Manifest) -> None:
        """Events and figures about a status that is now written."""
        for event in dict.fromkeys(compute_events(old, new)):
            self.post(event)
        self.metrics.observe_stages(finished_stages(old, new))
        for cause in new_restarts(old, new):
            self.metrics.restarts.labels(cause).inc()
        logger.info(new.get("message") or "status written")

    def _failed(self, error: Exception) -> float:
        """Log and count; returns the back-off in seconds."""
        if isinstance(error, NotFound):
            # The object itself was deleted; kopf ends the loop as soon as the watch says so.
            logger.info("gone while it was reconciled: %s", error)
        elif isinstance(error, Transient | Conflict):
            logger.warning("the apiserver could not answer, trying again: %s", error)
        elif isinstance(error, KubeError):
            logger.error("the apiserver refused a write: %s", error)
        else:
            logger.exception("reconcile failed")
        self.metrics.reconcile_errors.labels(self.key[0], type(error).__name__).inc()
        self._failures += 1
        return backoff(self._failures)


def backoff(failures: int) -> float:
    """Seconds to wait after this many failures in a row: doubling, bounded, spread by a fifth."""
    delay = min(BACKOFF_FIRST * 2.0 ** min(failures - 1, 16), BACKOFF_MAX)
    return float(delay * random.uniform(0.8, 1.2))


async def _sleep(wake: asyncio.Event, delay: float | None, measuring: asyncio.Future[Analysis] | None) -> None:
    """Until a change, the end of the check, or the delay."""
    woken = asyncio.ensure_future(wake.wait())
    awaited: list[asyncio.Future[Any]] = [woken, measuring] if measuring else [woken]
    try:
        await asyncio.wait(awaited, timeout=delay, return_when=asyncio.FIRST_COMPLETED)
    finally:
        woken.cancel()
    if wake.is_set():
        await asyncio.sleep(SETTLE_SECONDS)
