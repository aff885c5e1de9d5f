"""The one class of ours inside vLLM's server: `--middleware tunewright_server.middleware.AccessMiddleware`.

It denies by default (`policy`), tells which rules it follows, and counts how requests end. It imports nothing of vLLM.

Plain ASGI on purpose: Starlette's BaseHTTPMiddleware would put its own `receive` between the client and vLLM, and the
engine would go on generating for clients that are gone. Ours only looks at the messages that pass.
"""

import hmac
import json
import os
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from enum import StrEnum
from typing import Any

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge

from tunewright_api.names import HEADER_PROBE
from tunewright_server import policy

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_PUBLIC = {(method, path.encode()) for method, path in policy.PUBLIC}
_OWN = {(method, path.encode()) for method, path in policy.OWN}
_QUESTIONS = {(method, path.encode()) for method, path in policy.QUESTIONS}
_POLICY = ("GET", policy.POLICY_PATH.encode())
_PROBE = HEADER_PROBE.encode()
_KEY = policy.KEY_HEADER.encode()

# How vLLM's streams say that they failed, and that they are whole. Inside an event every quote is escaped, so generated
# text cannot look like either.
_ERROR_EVENT = b'data: {"error"'
_DONE_EVENT = b"data: [DONE]"
_TAIL = 32  # longer than both, with the line ends

_POLICY_BODY = json.dumps({"digest": policy.digest()}).encode()
_DENIAL_BODY = json.dumps(
    {
        "error": {
            "message": f"There is no such endpoint. This server answers {', '.join(policy.describe())}",
            "type": "NotFoundError",
            "param": None,
            "code": 404,
        }
    }
).encode()


class Outcome(StrEnum):
    """How a request ended."""

    COMPLETED = "Completed"
    CLIENT_ERROR = "ClientError"
    SERVER_ERROR = "ServerError"
    BROKEN = "Broken"  # the answer began and is not whole
    CLIENT_CLOSED = "ClientClosed"  # the client left before the end


class Source(StrEnum):
    """Who asked: a client, or Tunewright itself (header x-tunewright-probe)."""

    CLIENT = "client"
    PROBE = "probe"


class RequestMetrics:
    """Questions to the model, by outcome and source."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.total = Counter(
            "tunewright_requests_total", "Questions to the model that ended.", ["outcome", "source"], registry=registry
        )
        self.in_flight = Gauge(
            "tunewright_requests_in_flight", "Questions to the model under way.", ["source"], registry=registry
        )
        # A rate needs the zero before the first event.
        for source in Source:
            self.in_flight.labels(source)
            for outcome in Outcome:
                self.total.labels(outcome, source)


# The registry behind vLLM's /metrics: one API server process, hence prometheus_client's default (see `arguments`).
METRICS = RequestMetrics(REGISTRY)


class AccessMiddleware:
    """Lets the listed requests through to `app` and answers 404 to all others."""

    def __init__(self, app: App, metrics: RequestMetrics = METRICS, key: str | None = None) -> None:
        self._app = app
        self._metrics = metrics
        self._key = (os.environ.get(policy.KEY_VARIABLE, "") if key is None else key).encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "websocket":
            await _refuse_websocket(scope, send)
        elif scope["type"] == "lifespan":
            await self._app(scope, receive, send)

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        # The path as the client wrote it: a decoded one would have several spellings. With a root path vLLM would
        # route by another path than the one that was checked.
        key = (scope["method"], scope.get("raw_path"))
        exists = key in _PUBLIC or (key in _OWN and self._is_supervisor(scope["headers"]))
        if not exists or scope.get("root_path"):
            await _answer(send, 404, _DENIAL_BODY)
        elif key == _POLICY:
            await _answer(send, 200, _POLICY_BODY)
        elif key in _QUESTIONS:
            await self._question(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _is_supervisor(self, headers: Iterable[tuple[bytes, bytes]]) -> bool:
        """Whether the request has the key; without a key nobody is."""
        given = next((value for name, value in headers if name == _KEY), b"")
        return bool(self._key) and hmac.compare_digest(given, self._key)

    async def _question(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on and count how it ends."""
        source = _source(scope["headers"])
        in_flight = self._metrics.in_flight.labels(source)
        exchange = Exchange(receive, send)
        in_flight.inc()
        try:
            await self._app(scope, exchange.receive, exchange.send)
        finally:
            in_flight.dec()
            self._metrics.total.labels(exchange.outcome(), source).inc()


class Exchange:
    """One request and its answer, looked at while they pass."""

    __slots__ = ("_closed", "_ended", "_failed", "_receive", "_send", "_status", "_stream", "_tail")

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self._status = 0
        self._stream = False
        self._failed = False  # an error event was seen
        self._ended = False
        self._closed = False
        self._tail = b""

    async def receive(self) -> Message:
        """What the client sends."""
        message = await self._receive()
        if message["type"] == "http.disconnect" and not self._ended:
            self._closed = True
        return message

    async def send(self, message: Message) -> None:
        """What the server answers: the hot path, once per token."""
        if message["type"] == "http.response.body":
            if self._stream:
                # An event may be cut anywhere.
                seen = self._tail + message.get("body", b"")
                if _ERROR_EVENT in seen:
                    self._failed = True
                self._tail = seen[-_TAIL:]
            if not message.get("more_body"):
                self._ended = True
        elif message["type"] == "http.response.start":
            self._status = message["status"]
            self._stream = any(
                name.lower() == b"content-type" and value.startswith(b"text/event-stream")
                for name, value in message.get("headers", ())
            )
        await self._send(message)

    def outcome(self) -> Outcome:
        """How it ended, once the application returned or raised."""
        if self._failed:
            return Outcome.BROKEN
        if self._status >= 500:
            return Outcome.SERVER_ERROR
        if self._status >= 400:
            return Outcome.CLIENT_ERROR
        if self._is_whole():
            return Outcome.COMPLETED
        if self._closed:
            return Outcome.CLIENT_CLOSED
        return Outcome.BROKEN if self._status else Outcome.SERVER_ERROR

    def _is_whole(self) -> bool:
        if self._stream:
            return self._tail.rstrip().endswith(_DONE_EVENT)
        # vLLM answers a client that left with an empty success.
        return self._ended and not self._closed


def _source(headers: Iterable[tuple[bytes, bytes]]) -> Source:
    probe = any(name == _PROBE and value == b"1" for name, value in headers)
    return Source.PROBE if probe else Source.CLIENT


async def _answer(send: Send, status: int, body: bytes, kind: str = "http.response") -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": f"{kind}.start", "status": status, "headers": headers})
    await send({"type": f"{kind}.body", "body": body})


async def _refuse_websocket(scope: Scope, send: Send) -> None:
    """404 where the server can say so before the handshake, else the refusal that every server knows (403)."""
    if "websocket.http.response" in (scope.get("extensions") or {}):
        await _answer(send, 404, _DENIAL_BODY, "websocket.http.response")
    else:
        await send({"type": "websocket.close", "code": 1000})
