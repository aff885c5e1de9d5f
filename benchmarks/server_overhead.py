"""What Envoy and the server image cost against bare vLLM.

Usage: `python -m benchmarks.server_overhead [--rounds N] [--clients N] [--first-tokens N]`

Two servers of the same small model on this machine: vLLM alone, and vLLM with our middleware and supervisor behind an
Envoy, with the same arguments otherwise. They take turns, round by round, so that what else the machine does meets
both. Prints tokens per second, CPU time per token and the first token's latency of both, ratios and differences, and
the cost of the middleware alone. CPU time per token is the steadier figure on a machine that is busy with other things.
The first token is timed on requests of one token, one at a time: of concurrent streams its latency is the queue's.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import shutil
import statistics
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
from prometheus_client import CollectorRegistry

from benchmarks.envoy import envoy_before
from e2e.cluster.wait import wait_for
from e2e.images.model import build_model
from tests.server.harness import IDENTITY, Server, free_port, write_manifest
from tests.server.vllm_runtime import ABSENT, Runtime, find_runtime
from tunewright_api.server_config import ServerConfig
from tunewright_server.arguments import MIDDLEWARE, build_arguments, build_environment
from tunewright_server.machine import available_cpus
from tunewright_server.middleware import AccessMiddleware, Message, Receive, RequestMetrics, Scope, Send

REQUESTS = 16
TOKENS = 32
CHUNKS = 200_000
PROMPT = "Once upon a time there was a small town by the sea, and in it"


@dataclass(frozen=True)
class Target:
    """A running server: the port to ask, and the processes that it started with."""

    port: int
    pids: tuple[int, ...]

    def cpu_seconds(self) -> float:
        """CPU time of all its processes so far (proc(5): fields 4, 14 and 15 of stat)."""
        parents: dict[int, int] = {}
        ticks: dict[int, int] = {}
        for path in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):  # it ended meanwhile
                fields = path.read_text().rpartition(")")[2].split()
                pid = int(path.parent.name)
                parents[pid], ticks[pid] = int(fields[1]), int(fields[11]) + int(fields[12])
        family = set(self.pids)
        while more := {pid for pid, parent in parents.items() if parent in family} - family:
            family |= more
        return sum(ticks.get(pid, 0) for pid in family) / os.sysconf("SC_CLK_TCK")


@dataclass
class Series:
    """What was measured of one server: per round of concurrent streams, and per request that was alone."""

    tokens_per_second: list[float] = field(default_factory=list)
    cpu_per_token: list[float] = field(default_factory=list)
    first_token: list[float] = field(default_factory=list)

    def p(self, percent: int) -> float:
        """A percentile of the first token's latency, in milliseconds."""
        return statistics.quantiles(self.first_token, n=100)[percent - 1] * 1000


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20, help="rounds of each server (default: 20)")
    parser.add_argument("--clients", type=int, default=4, help="streams at a time (default: 4)")
    parser.add_argument("--first-tokens", type=int, default=500, help="requests of one token (default: 500)")
    options = parser.parse_args()
    runtime = find_runtime()
    if runtime is None:
        raise SystemExit(ABSENT)
    model = build_model()
    with (
        tempfile.TemporaryDirectory() as directory,
        bare(runtime, model, Path(directory)) as plain,
        ours(runtime, model, Path(directory) / "ours") as guarded,
    ):
        bare_series, our_series = asyncio.run(measure(plain, guarded, options))
    report(bare_series, our_series, options.clients)
    with_it, without = asyncio.run(cost_of_a_chunk())
    print(f"the middleware alone: {(with_it - without) * 1e6:.2f} µs per streamed token")


def report(plain: Series, guarded: Series, clients: int) -> None:
    """Print both series, and what one costs against the other."""
    load = os.getloadavg()[0]
    print(
        f"SmolLM2-135M, clients {clients}, {len(plain.tokens_per_second)} rounds of {REQUESTS} requests of {TOKENS} "
        f"tokens each, then {len(plain.first_token)} of one token, {os.cpu_count()} cores, load {load:.1f}"
    )
    for name, series in (("bare vLLM", plain), ("Envoy, image", guarded)):
        print(
            f"{name:13} {statistics.median(series.tokens_per_second):7.1f} tokens/s   "
            f"{statistics.median(series.cpu_per_token) * 1000:6.2f} ms CPU per token   "
            f"first token p50 {series.p(50):6.1f} ms  p99 {series.p(99):6.1f} ms"
        )
    print(
        f"Envoy and server image / bare vLLM: tokens/s {ratio(guarded.tokens_per_second, plain.tokens_per_second)}, "
        f"CPU per token {ratio(guarded.cpu_per_token, plain.cpu_per_token)}; "
        f"first token p50 {guarded.p(50) - plain.p(50):+.1f} ms, p99 {guarded.p(99) - plain.p(99):+.1f} ms"
    )


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> str:
    """Median and quartiles of the rounds' ratios."""
    low, middle, high = statistics.quantiles((a / b for a, b in zip(ours, theirs, strict=True)), n=4)
    return f"{middle:.3f} ({low:.3f} to {high:.3f})"


@contextlib.contextmanager
def bare(runtime: Runtime, model: Path, directory: Path) -> Iterator[Target]:
    """A vLLM with the arguments of the server image, but for the middleware."""
    port = free_port()
    config = ServerConfig.model_validate(
        {
            "model": {"artifact": str(model), "digest": "sha256:" + "0" * 64, "servedName": "demo"},
            "identity": IDENTITY,
            "port": port,
        }
    )
    arguments = [word for word in build_arguments(config, model, 3) if word not in ("--middleware", MIDDLEWARE)]
    environment = build_environment(config, os.environ | runtime.environment, available_cpus(), directory / "cache")
    with (directory / "bare.log").open("wb") as log:
        process = subprocess.Popen([*runtime.engine, *arguments], env=environment, stdout=log, stderr=log)
    try:
        wait_for("bare vLLM", lambda: answers(port) or process.poll() is not None, 300)
        yield Target(port, (process.pid,))
    finally:
        process.terminate()
        process.wait(30)


@contextlib.contextmanager
def ours(runtime: Runtime, model: Path, directory: Path) -> Iterator[Target]:
    """A server as the image runs it, behind an Envoy."""
    server = Server(directory)
    shutil.copytree(model, server.artifact / "model")
    server.overrides["digest"] = write_manifest(server.artifact)
    # As often as in production.
    production: dict[str, float] = {"CHECK": 10, "COMPLETION": 60, "COMPLETION_TIMEOUT": 30, "PERFORMANCE_TIMEOUT": 10}
    server.start(runtime.engine, settings=production, environment=runtime.environment)
    try:
        server.wait_ready(300)
        assert server.process is not None
        with envoy_before(server.port, directory, answers) as (port, envoy):
            yield Target(port, (server.process.pid, envoy))
    finally:
        server.stop()


def answers(port: int) -> bool:
    """Whether /v1/models is 200."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/models", timeout=5) as response:
            return bool(response.status == 200)
    except OSError:
        return False


async def measure(plain: Target, guarded: Target, options: argparse.Namespace) -> tuple[Series, Series]:
    """Rounds of both in turn, the first of each for warming up; then single requests in turn."""
    series = {plain: Series(), guarded: Series()}
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        for target in series:
            await play(session, target, Series(), options.clients)
        for number in range(options.rounds):
            # Who comes first changes as well.
            for target in (plain, guarded) if number % 2 else (guarded, plain):
                await play(session, target, series[target], options.clients)
        for number in range(options.first_tokens):
            for target in (plain, guarded) if number % 2 else (guarded, plain):
                series[target].first_token.append(await stream(session, target.port, 1))
    return series[plain], series[guarded]


async def play(session: aiohttp.ClientSession, target: Target, series: Series, clients: int) -> None:
    """One round: REQUESTS streams, so many at a time."""
    left = iter(range(REQUESTS))

    async def client() -> None:
        for _ in left:
            await stream(session, target.port, TOKENS)

    started, cpu = time.perf_counter(), target.cpu_seconds()
    await asyncio.gather(*(client() for _ in range(clients)))
    tokens = REQUESTS * TOKENS
    series.tokens_per_second.append(tokens / (time.perf_counter() - started))
    series.cpu_per_token.append((target.cpu_seconds() - cpu) / tokens)


async def stream(session: aiohttp.ClientSession, port: int, tokens: int) -> float:
    """Read one whole stream; seconds to its first token."""
    body = {"model": "demo", "prompt": PROMPT, "max_tokens": tokens, "ignore_eos": True, "stream": True}
    first = 0.0
    started = time.perf_counter()
    async with session.post(f"http://127.0.0.1:{port}/v1/completions", json=body) as response:
        response.raise_for_status()
        async for line in response.content:
            if not first and line.startswith(b"data: {"):
                first = time.perf_counter() - started
    return first


async def cost_of_a_chunk() -> tuple[float, float]:
    """Seconds per chunk of a stream with the middleware around it, and without."""
    chunk: Message = {"type": "http.response.body", "body": b"data: " + b"x" * 300 + b"\n\n", "more_body": True}
    head: Message = {
        "type": "http.response.start",
        "status": 200,
        "headers": [(b"content-type", b"text/event-stream; charset=utf-8")],
    }

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(head)
        for _ in range(CHUNKS):
            await send(chunk)

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        pass

    path = "/v1/completions"
    scope: Scope = {"type": "http", "method": "POST", "path": path, "raw_path": path.encode(), "headers": []}
    seconds: list[float] = []
    for tried in (AccessMiddleware(app, RequestMetrics(CollectorRegistry())), app):
        started = time.perf_counter()
        await tried(scope, receive, send)
        seconds.append((time.perf_counter() - started) / CHUNKS)
    return seconds[0], seconds[1]


if __name__ == "__main__":
    main()
