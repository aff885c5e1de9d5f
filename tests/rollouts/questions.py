"""Between the operator and Prometheus: passes every query on, and remembers who asked what and when."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import aiohttp
from aiohttp import web

from tests.rollouts.background import Background
from tunewright_api.names import METRIC_LABEL_NAMESPACE, METRIC_LABEL_SERVICE

_LABEL = re.compile(rf'\b({METRIC_LABEL_NAMESPACE}|{METRIC_LABEL_SERVICE})="([^"]*)"')


@dataclass
class Questions:
    """What was asked. All queries of one round have the same evaluation time."""

    target: str
    url: str = ""
    asked: list[tuple[str, str, float]] = field(default_factory=list)  # namespace, service, evaluation time

    def rounds(self, namespace: str, service: str) -> list[float]:
        """Evaluation times of the rounds about one service, oldest first."""
        return sorted({at for where, what, at in list(self.asked) if (where, what) == (namespace, service)})

    async def pass_on(self, request: web.Request) -> web.Response:
        """Answer as Prometheus does."""
        labels = dict(_LABEL.findall(request.query.get("query", "")))
        at = float(request.query.get("time", "nan"))
        self.asked.append((labels.get(METRIC_LABEL_NAMESPACE, ""), labels.get(METRIC_LABEL_SERVICE, ""), at))
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"{self.target}{request.path_qs}") as response,
        ):
            body = await response.read()
            return web.Response(body=body, status=response.status, content_type=response.content_type)


@contextmanager
def listening(target: str) -> Iterator[Questions]:
    """The way to the Prometheus at `target` for the time of the block."""
    questions, background = Questions(target), Background("questions")
    app = web.Application()
    app.add_routes([web.get("/{path:.*}", questions.pass_on)])
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)

    async def start() -> None:
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        questions.url = f"http://{host}:{port}"

    background.run(start())
    try:
        yield questions
    finally:
        background.run(runner.cleanup())
