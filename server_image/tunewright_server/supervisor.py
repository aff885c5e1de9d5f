"""The life of a server: verify, start vLLM, watch it, drain, stop. Everything else is in its own module."""

import asyncio
import contextlib
import logging
import secrets
import signal
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, TypeVar

import aiohttp
from aiohttp import web

from tunewright_api.names import ExitCode
from tunewright_api.server_config import ServerConfig
from tunewright_server import readiness
from tunewright_server.arguments import build_arguments, build_environment
from tunewright_server.cache import cache_directory, fill_cache
from tunewright_server.client import EngineClient, EngineError
from tunewright_server.config import verify_artifact
from tunewright_server.diagnosis import Exit, diagnose
from tunewright_server.drain import Drained, drain
from tunewright_server.engine import Engine
from tunewright_server.exposition import add_labels, identity_labels, render_own
from tunewright_server.failures import ServerError
from tunewright_server.health import build_app
from tunewright_server.machine import available_cpus, oom_kills
from tunewright_server.monitor import Board, Monitor
from tunewright_server.performance import answer_length
from tunewright_server.policy import KEY_VARIABLE
from tunewright_server.settings import Settings

T = TypeVar("T")

HOST = "0.0.0.0"

log = logging.getLogger(__name__)


class Supervisor:
    """Runs one vLLM for one configuration. `command` starts it; our arguments are appended."""

    def __init__(
        self, config: ServerConfig, settings: Settings, command: Sequence[str], environment: Mapping[str, str]
    ) -> None:
        self._config = config
        self._settings = settings
        self._command = command
        self._environment = environment
        self._board = Board(readiness.verifying(time.monotonic()))
        self._client: EngineClient | None = None  # while vLLM runs
        self._stop = asyncio.Event()
        self._stuck_at_stop: str | None = None

    async def run(self) -> str:
        """Serve until SIGTERM; return how it ended. Raises ServerError when it cannot go on."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_stop)
        async with self._health_port():
            try:
                return await self._verify_and_serve()
            except ServerError as failure:
                self._board.show(readiness.failed(self._board.current, failure.message, time.monotonic()))
                raise

    def _on_stop(self) -> None:
        """Not ready from this moment on; the rest follows."""
        now = time.monotonic()
        self._stuck_at_stop = readiness.stuck(self._board.current, self._settings, now)
        self._board.show(readiness.draining(self._board.current, now))
        self._stop.set()

    async def _verify_and_serve(self) -> str:
        started = time.monotonic()
        verifying = _in_thread(lambda: verify_artifact(self._config))
        stopping = asyncio.create_task(self._stop.wait())
        first: set[asyncio.Future[Any]] = {verifying, stopping}
        await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
        if self._stop.is_set():
            return "stopped while the artifact was being verified"
        stopping.cancel()
        model = await verifying
        log.info("the digest is right, after %.1f s", time.monotonic() - started)
        fill_cache(self._environment)
        _check_port_is_free(self._config.port)
        arguments = build_arguments(self._config, model, self._settings.engine_drain)
        environment = build_environment(
            self._config, self._environment, available_cpus(), cache_directory(self._environment)
        )
        key = secrets.token_urlsafe(32)
        environment[KEY_VARIABLE] = key
        log.info("starting vLLM: %s", " ".join(arguments))
        kills = oom_kills()
        try:
            engine = await Engine.start([*self._command, *arguments], environment)
        except OSError as error:
            raise ServerError(ExitCode.INTERNAL, f"{self._command[0]} cannot be started: {error.strerror}") from error
        self._board.show(readiness.loading(self._board.current, time.monotonic()))
        async with aiohttp.ClientSession() as session:
            self._client = EngineClient(session, self._config.port, self._config.model.served_name, key)
            try:
                return await self._serve(engine, self._client, kills)
            finally:
                self._client = None

    async def _serve(self, engine: Engine, client: EngineClient, kills: int) -> str:
        """Until vLLM ends, is stuck, or has been drained after SIGTERM. vLLM has ended when this returns."""
        tokens = answer_length(self._config.engine.max_model_len)
        watching = asyncio.create_task(Monitor(engine, client, self._board, self._settings, tokens).run())
        ended = asyncio.create_task(engine.wait())
        stopping = asyncio.create_task(self._stop.wait())
        drained: Drained | None = None
        try:
            await asyncio.wait({watching, ended, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if self._stop.is_set() and not ended.done():
                watching.cancel()
                drained = await self._drain(client, ended)
            if ended.done():
                raise diagnose(Exit(ended.result(), engine.lines, oom_kills() - kills))
            if watching.done() and not watching.cancelled():
                watching.result()  # raises
        finally:
            for task in (watching, stopping, ended):
                task.cancel()
            graceful = await engine.stop(self._settings.engine_stop)
        if self._stuck_at_stop is not None:
            raise ServerError(ExitCode.INTERNAL, f"vLLM was stuck: {self._stuck_at_stop}")
        return _describe(drained, graceful)

    async def _drain(self, client: EngineClient, ended: "asyncio.Task[int]") -> Drained | None:
        """Let requests end; None when there was nothing to wait for, or vLLM ended meanwhile."""
        if self._stuck_at_stop is not None or not self._was_serving:
            return None

        async def in_flight() -> int:
            return (await client.read_metrics()).in_flight

        draining = asyncio.create_task(drain(in_flight, float(self._config.drain_seconds), self._settings))
        await asyncio.wait({draining, ended}, return_when=asyncio.FIRST_COMPLETED)
        if draining.done():
            return draining.result()
        draining.cancel()
        return None

    @property
    def _was_serving(self) -> bool:
        """Whether a completion ever came back: before that no request was sent here."""
        return self._board.completed_once

    @contextlib.asynccontextmanager
    async def _health_port(self) -> AsyncIterator[None]:
        app = build_app(self._board, self._settings, self._exposition)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
        await runner.setup()
        try:
            try:
                await web.TCPSite(runner, HOST, self._config.health_port).start()
            except OSError as error:
                raise _port_taken("healthPort", self._config.health_port) from error
            yield
        finally:
            await runner.cleanup()

    async def _exposition(self) -> str:
        """The metrics of this pod: ours, and vLLM's while it answers."""
        labels = identity_labels(self._config.identity)
        own = render_own(labels, ready=readiness.ready(self._board.current), gpus=self._config.gpus)
        if self._client is None:
            return own
        try:
            return own + add_labels(await self._client.read_exposition(), labels)
        except EngineError:
            return own


def _describe(drained: Drained | None, graceful: bool) -> str:
    ending = "" if graceful else "; vLLM had to be killed"
    if drained is None:
        return f"stopped before the first completion{ending}"
    if drained.clean:
        return f"stopped after {drained.seconds:.0f} s with every request answered{ending}"
    left = "an unknown number of" if drained.left is None else drained.left
    return f"stopped after {drained.seconds:.0f} s (drainSeconds) with {left} requests running{ending}"


def _check_port_is_free(port: int) -> None:
    """vLLM would find out only after a minute of loading."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise _port_taken("port", port) from error


def _port_taken(field: str, port: int) -> ServerError:
    return ServerError(
        ExitCode.INTERNAL,
        f"{field} {port} is taken by another process of this pod: remove the container that listens on it",
    )


def _in_thread(work: Callable[[], T]) -> "asyncio.Future[T]":
    """Run the work in a daemon thread: unlike asyncio's own, it does not hold up the end of the process."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(set_it: Callable[[], None]) -> None:
        def if_wanted() -> None:
            if not future.done():
                set_it()

        with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
            loop.call_soon_threadsafe(if_wanted)

    def target() -> None:
        try:
            result = work()
        except Exception as error:
            failure = error
            settle(lambda: future.set_exception(failure))
        else:
            settle(lambda: future.set_result(result))

    threading.Thread(target=target, daemon=True, name="work").start()
    return future
