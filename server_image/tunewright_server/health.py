"""The health port: GET /ready and GET /live for the kubelet, GET /metrics for Prometheus."""

import time
from collections.abc import Awaitable, Callable

from aiohttp import web

from tunewright_server import readiness
from tunewright_server.exposition import CONTENT_TYPE
from tunewright_server.monitor import Board
from tunewright_server.settings import Settings


def build_app(
    board: Board,
    settings: Settings,
    exposition: Callable[[], Awaitable[str]],
    clock: Callable[[], float] = time.monotonic,
) -> web.Application:
    """The application. /ready and /live only read memory, so they answer at once whatever vLLM does."""

    async def ready(_: web.Request) -> web.Response:
        good = readiness.ready(board.current)
        return web.json_response(board.report().to_dict(), status=200 if good else 503)

    async def live(_: web.Request) -> web.Response:
        problem = readiness.stuck(board.current, settings, clock())
        body = {"state": board.current.state, "message": problem or board.current.message}
        return web.json_response(body, status=200 if problem is None else 503)

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=(await exposition()).encode(), headers={"content-type": CONTENT_TYPE})

    app = web.Application()
    app.add_routes([web.get("/ready", ready), web.get("/live", live), web.get("/metrics", metrics)])
    return app
