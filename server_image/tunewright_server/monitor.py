"""Watch a running vLLM and keep the readiness true: from loading to the first completion, then for ever.

it listens -> it follows our access rules -> a completion came back -> its speed was measured -> Ready
"""

import asyncio
import logging
import time
from dataclasses import dataclass, field, replace

from tunewright_api.names import ExitCode
from tunewright_api.results import ServerPerformance, ServerReadiness
from tunewright_server import policy, readiness
from tunewright_server.client import EngineClient, EngineError, EngineMetrics
from tunewright_server.diagnosis import find_fault
from tunewright_server.engine import Engine
from tunewright_server.failures import ServerError
from tunewright_server.performance import measure
from tunewright_server.readiness import Readiness, State
from tunewright_server.settings import Settings

# CPU time that proves work: an idle process uses less between two looks.
_WORK_SECONDS = 1.0
_WORK_EVERY = 5.0

log = logging.getLogger(__name__)


@dataclass
class Board:
    """The readiness of this server: written by the supervisor and the monitor, read by the health port."""

    current: Readiness
    completed_once: bool = False
    policy_digest: str | None = None
    performance: ServerPerformance | None = None

    def show(self, new: Readiness) -> None:
        """Replace it, and log a change of state."""
        if new.state is not self.current.state:
            log.info("%s -> %s: %s", self.current.state, new.state, new.message)
        self.current = new
        self.completed_once |= new.state is State.READY

    def report(self) -> ServerReadiness:
        """What GET /ready answers."""
        return ServerReadiness(
            state=self.current.state,
            message=self.current.message,
            policy_digest=self.policy_digest,
            performance=self.performance,
        )


@dataclass(frozen=True)
class _Seen:
    """The engine's counters at the last look, and when a completion last came back."""

    metrics: EngineMetrics = field(default_factory=EngineMetrics)
    completed_at: float | None = None


class Monitor:
    """The loop around the pure state machine. It ends only by raising ServerError: waiting does not help."""

    def __init__(
        self, engine: Engine, client: EngineClient, board: Board, settings: Settings, measured_tokens: int
    ) -> None:
        self._engine = engine
        self._client = client
        self._board = board
        self._settings = settings
        self._measured_tokens = measured_tokens
        self._stuck_since: float | None = None

    async def run(self) -> None:
        """Watch until cancelled."""
        await self._wait_until_listening()
        await self._check_policy()
        if (fault := find_fault(self._engine.lines)) is not None:
            raise fault
        seen = _Seen()
        while True:
            seen = await self._look(seen)
            self._raise_if_stuck()
            good = self._board.current.state is not State.UNHEALTHY
            await asyncio.sleep(self._settings.check if good else self._settings.retry)

    async def _wait_until_listening(self) -> None:
        """Until /health answers. Output and CPU time are signs of life meanwhile."""
        worked, looked_at = 0.0, 0.0
        while True:
            now = time.monotonic()
            self._sign(self._engine.printed_at)
            if now - looked_at >= min(_WORK_EVERY, self._settings.loading_silence / 3):
                looked_at = now
                # Summing /proc is not free, hence not at every look.
                if (cpu := self._engine.cpu_seconds()) - worked >= _WORK_SECONDS:
                    worked = cpu
                    self._sign(now)
            try:
                return await self._client.check_health()
            except EngineError:
                self._raise_if_stuck()
                await asyncio.sleep(self._settings.loading_poll)

    async def _check_policy(self) -> None:
        """A server that lets other requests through than ours must never get traffic."""
        while True:
            try:
                found = await self._client.read_policy()
                break
            except EngineError as error:
                log.warning("the access rules cannot be read yet: %s", error)
                self._raise_if_stuck()
                await asyncio.sleep(self._settings.retry)
        if found != (want := policy.digest()):
            difference = "without access rules" if found is None else f"with the access rules {found} instead of {want}"
            raise ServerError(
                ExitCode.INVALID_CONFIG,
                f"vLLM runs {difference}, and would answer requests that must not reach it: use the server image as it "
                "was built, with a vLLM that loads --middleware",
            )
        self._board.policy_digest = found

    async def _look(self, seen: _Seen) -> _Seen:
        """One check; a real completion when none was seen for a while, or after a failure, of a client's as well."""
        try:
            await self._client.check_health()
            metrics = await self._client.read_metrics()
            # What failed for a client may fail for all: then only our own completion tells.
            if metrics.failed <= seen.metrics.failed:
                if seen.completed_at is not None and metrics.completed > seen.metrics.completed:
                    # Users' own completions are the best evidence, and cost nothing.
                    return self._completed(metrics)
                # Requests that get no token: the last good answer says nothing about them.
                hangs = metrics.in_flight > 0 and metrics.generated_tokens == seen.metrics.generated_tokens
                if self._is_fresh(seen.completed_at) and not hangs:
                    return replace(seen, metrics=metrics)
            await self._client.complete(self._settings.completion_timeout)
            await self._measure_once()
            return self._completed(await self._client.read_metrics())
        except EngineError as error:
            return await self._not_answering(seen, str(error))

    async def _measure_once(self) -> None:
        """Before the first traffic, while nothing else runs. Bounded, and nothing depends on it."""
        if self._board.completed_once:
            return
        started = time.monotonic()
        try:
            arrivals = await self._client.stream(self._measured_tokens, self._settings.performance_timeout)
        except EngineError as error:
            log.warning("the speed cannot be measured: %s", error)
            return
        self._board.performance = speed = measure(started, arrivals)
        if speed is None:
            log.warning("the speed cannot be measured: %d tokens came", arrivals[-1].tokens if arrivals else 0)
        else:
            log.info(
                "first token after %.0f ms, %.1f ms per further token, %.1f tokens/s",
                speed.ttft_milliseconds,
                speed.tpot_milliseconds,
                speed.tokens_per_second,
            )

    def _is_fresh(self, completed_at: float | None) -> bool:
        ready = readiness.ready(self._board.current)
        return ready and completed_at is not None and time.monotonic() - completed_at < self._settings.completion

    def _completed(self, metrics: EngineMetrics) -> _Seen:
        now = time.monotonic()
        self._board.show(readiness.completed(self._board.current, now))
        return _Seen(metrics, now)

    async def _not_answering(self, seen: _Seen, problem: str) -> _Seen:
        """A check failed: busy when tokens are being generated for somebody, else unhealthy."""
        try:
            metrics = await self._client.read_metrics()
        except EngineError:
            metrics = seen.metrics
        busy = metrics.generated_tokens > seen.metrics.generated_tokens
        if busy:
            self._sign(time.monotonic())
        if not (busy and readiness.ready(self._board.current)):
            self._board.show(readiness.not_answering(self._board.current, problem, time.monotonic()))
        return replace(seen, metrics=metrics)

    def _sign(self, at: float) -> None:
        self._board.show(readiness.gave_sign(self._board.current, at))

    def _raise_if_stuck(self) -> None:
        now = time.monotonic()
        problem = readiness.stuck(self._board.current, self._settings, now)
        if problem is None:
            self._stuck_since = None
            return
        self._stuck_since = self._stuck_since or now
        if now - self._stuck_since >= self._settings.stuck_exit:
            raise ServerError(ExitCode.INTERNAL, f"vLLM is stuck: {problem}. The container is started again")
