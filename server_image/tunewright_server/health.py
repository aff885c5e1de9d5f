"""The health port: GET /ready and GET /live for the kubelet, from the supervisor's readiness."""

import time
from collections.abc import Callable

from aiohttp import web

from tunewright_server import readiness
from tunewright_server.readiness import Readiness
from tunewright_server.settings import Settings


def build_app(
    current: Callable[[], Readiness], settings: Settings, clock: Callable[[], float] = time.monotonic
) -> web.Application:
    """The application; both endpoints only read memory, so they answer at once whatever vLLM does."""

    async def ready(_: web.Request) -> web.Response:
        now = current()
        return _answer(readiness.ready(now), now, now.message)

    async def live(_: web.Request) -> web.Response:
        now = current()
        problem = readiness.stuck(now, settings, clock())
        return _answer(problem is None, now, problem or now.message)

    app = web.Application()
    app.add_routes([web.get("/ready", ready), web.get("/live", live)])
    return app


def _answer(good: bool, current: Readiness, message: str) -> web.Response:
    return web.json_response({"state": current.state, "message": message}, status=200 if good else 503)
