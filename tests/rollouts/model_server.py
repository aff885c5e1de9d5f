"""A scripted model server: real HTTP with vLLM's API and metric names, and a behaviour that a test changes meanwhile.

One event loop serves many of them, each on an address of its own with the two ports of a server pod. What a request
meets (latency, an error, a broken stream, an answer) comes from `Behaviour` at the moment of the request.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from tests.rollouts.behaviour import Behaviour, Shares
from tests.rollouts.meters import Meters
from tunewright_api.names import HEADER_PROBE
from tunewright_api.results import ServerPerformance, ServerReadiness
from tunewright_api.server_config import ServerConfig

Json = dict[str, Any]

POLICY_DIGEST = "sha256:" + "0" * 64


class BrokenError(Exception):
    """The connection breaks in the middle of an answer."""


@dataclass
class Request:
    """One completion: what was asked, and what the script says becomes of it."""

    chat: bool
    model: str
    prompt: str
    stream: bool
    usage: bool  # whether the stream ends with the numbers of tokens
    words: list[str]
    error: bool
    broken: bool
    aborted: bool

    @property
    def finish_reason(self) -> str:
        return "abort" if self.aborted else "stop"


class ModelServer:
    """The processes of one container: the health port from the start, the API once the model is loaded."""

    def __init__(self, address: str, config: ServerConfig, behaviour: Behaviour, *, scrapes: int = 0) -> None:
        self.address = address
        self.config = config
        self.behaviour = behaviour
        self.loaded = False
        self.draining = False
        self.in_flight = 0
        self._scrapes_wanted = scrapes
        self._meters = Meters(config)
        self._text: bytes | None = None  # the answer to a scrape, until something happens
        self._shown = False  # whether that answer says ready
        self._shares = Shares()
        self._runners: list[web.AppRunner] = []

    @property
    def ready(self) -> bool:
        """What /ready answers: the model is loaded and a completion would come back.

        Prometheus finds a new pod up to ten seconds late. A server that shall be judged is not ready before it was
        scraped (`scrapes` times), so that no check lacks its figures.
        """
        return self.answers and self._scrapes_wanted <= 0

    @property
    def answers(self) -> bool:
        """Whether a completion would come back."""
        return self.loaded and self.behaviour.healthy

    @property
    def state(self) -> str:
        if self.draining:
            return "Draining"
        if not self.loaded or self._scrapes_wanted > 0:
            return "Loading"
        return "Ready" if self.behaviour.healthy else "Unhealthy"

    async def start(self) -> None:
        """Listen on the health port."""
        app = web.Application()
        app.add_routes(
            [web.get("/ready", self._ready), web.get("/live", self._live), web.get("/metrics", self._metrics)]
        )
        await self._listen(app, self.config.health_port)

    async def load(self) -> None:
        """The model is loaded: listen on the API's port."""
        app = web.Application()
        app.add_routes(
            [
                web.get("/health", self._live),
                web.get("/metrics", self._metrics),
                web.get("/v1/models", self._models),
                web.get("/tunewright/policy", self._policy),
                web.post("/v1/chat/completions", self._complete),
                web.post("/v1/completions", self._complete),
            ]
        )
        await self._listen(app, self.config.port)
        self.loaded = True

    async def stop(self) -> None:
        """Close every socket at once, as the kernel does for a process that is killed."""
        self.loaded = False
        for runner in self._runners:
            await runner.cleanup()
        self._runners.clear()

    async def _listen(self, app: web.Application, port: int) -> None:
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.01)
        await runner.setup()
        await web.TCPSite(runner, self.address, port).start()
        self._runners.append(runner)

    # --- the small endpoints --------------------------------------------------------------------

    async def _ready(self, _: web.Request) -> web.Response:
        speed = ServerPerformance(
            ttft_milliseconds=self.behaviour.first_token * 1000,
            tpot_milliseconds=self.behaviour.per_token * 1000,
            tokens_per_second=1 / max(self.behaviour.per_token, 0.001),
        )
        answer = ServerReadiness(
            state=self.state,
            message=f"the server is {self.state.lower()}",
            policy_digest=POLICY_DIGEST if self.loaded else None,
            performance=speed if self.loaded else None,
        )
        return web.json_response(answer.to_dict(), status=200 if self.ready else 503)

    async def _live(self, _: web.Request) -> web.Response:
        return web.json_response({"state": self.state, "message": ""})

    async def _metrics(self, _: web.Request) -> web.Response:
        if self.loaded:
            self._scrapes_wanted -= 1
        if self._text is None or self.ready is not self._shown:
            self._shown = self.ready
            self._meters.ready.set(self._shown)
            self._text = self._meters.text()
        return web.Response(body=self._text, headers={"Content-Type": "text/plain; version=0.0.4"})

    async def _models(self, _: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": self.config.model.served_name, "object": "model"}]})

    async def _policy(self, _: web.Request) -> web.Response:
        return web.json_response({"digest": POLICY_DIGEST})

    # --- completions ----------------------------------------------------------------------------

    async def _complete(self, http: web.Request) -> web.StreamResponse:
        source = "probe" if http.headers.get(HEADER_PROBE) == "1" else "client"
        async with self._counted(source) as outcome:
            request = await self._read(http)
            if isinstance(request, str):
                outcome.name = "ClientError"
                return web.json_response({"error": {"message": request, "code": 400}}, status=400)
            if request.error or not self.behaviour.healthy:
                outcome.name = "ServerError"
                self._meters.finished("error")
                return web.json_response({"error": {"message": "the engine is broken", "code": 500}}, status=500)
            try:
                return await (self._stream(http, request) if request.stream else self._whole(request))
            except BrokenError:
                outcome.name = "Broken"
                assert http.transport
                http.transport.abort()
                return web.Response()  # which nobody gets
            except (ConnectionError, asyncio.CancelledError):
                outcome.name = "ClientClosed"
                self._meters.finished("abort")
                raise

    async def _read(self, http: web.Request) -> Request | str:
        """The request, or what is wrong with it."""
        try:
            body: Json = await http.json()
            chat = http.path.endswith("/chat/completions")
            prompt = str(body["messages"][-1]["content"] if chat else body["prompt"])
            model = str(body["model"])
        except (ValueError, LookupError, TypeError) as error:
            return f"not a completion request: {error!r}"
        if model != self.config.model.served_name:
            return f"the model `{model}` does not exist"
        script = self.behaviour
        return Request(
            chat=chat,
            model=model,
            prompt=prompt,
            stream=bool(body.get("stream")),
            usage=bool((body.get("stream_options") or {}).get("include_usage")),
            words=script.reply(prompt).split(" ")[: body.get("max_tokens") or None],
            error=self._shares.takes("errors", script.errors),
            broken=self._shares.takes("broken", script.broken),
            aborted=self._shares.takes("aborted", script.aborted),
        )

    async def _whole(self, request: Request) -> web.Response:
        text = "".join([piece async for piece in self._generate(request)])
        content = {"message": {"role": "assistant", "content": text}} if request.chat else {"text": text}
        return web.json_response(self._envelope(request, content, request.finish_reason) | self._usage(request))

    async def _stream(self, http: web.Request, request: Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(http)
        async for piece in self._generate(request):
            content = {"delta": {"content": piece}} if request.chat else {"text": piece}
            await response.write(_event(self._envelope(request, content, None)))
        nothing: Json = {"delta": {}} if request.chat else {"text": ""}
        await response.write(_event(self._envelope(request, nothing, request.finish_reason)))
        if request.usage:
            await response.write(_event(self._envelope(request, None, None) | self._usage(request)))
        await response.write(b"data: [DONE]\n\n")
        await response.write_eof()
        return response

    async def _generate(self, request: Request) -> AsyncIterator[str]:
        """The answer word by word at the scripted pace, and vLLM's figures about it.

        The figures are the script's, not a stopwatch's: how busy the machine is must not decide a rollout.
        """
        first, further = self.behaviour.first_token, self.behaviour.per_token
        await asyncio.sleep(first)
        self._meters.prompt_tokens.inc(len(request.prompt.split()))
        self._meters.first_token.observe(first)
        for number, word in enumerate(request.words):
            if number:
                await asyncio.sleep(further)
            if request.broken and number * 2 >= len(request.words):
                raise BrokenError
            self._meters.generated_tokens.inc()
            yield word if number == 0 else f" {word}"
        if len(request.words) > 1:
            self._meters.per_token.observe(further)
        self._meters.whole.observe(first + further * (len(request.words) - 1))
        self._meters.finished(request.finish_reason)

    def _envelope(self, request: Request, content: Json | None, finish_reason: str | None) -> Json:
        kind = "chat.completion" if request.chat else "text_completion"
        choices = [] if content is None else [{"index": 0, **content, "finish_reason": finish_reason}]
        return {
            "id": "cmpl",
            "object": f"{kind}.chunk" if request.stream and request.chat else kind,
            "model": request.model,
            # Which version and revision answered: what a test asks every answer.
            "system_fingerprint": f"{self.config.identity.version}/{self.config.identity.revision}",
            "choices": choices,
        }

    def _usage(self, request: Request) -> Json:
        prompt, answer = len(request.prompt.split()), len(request.words)
        usage = {"prompt_tokens": prompt, "completion_tokens": answer, "total_tokens": prompt + answer}
        return {"usage": usage}

    @asynccontextmanager
    async def _counted(self, source: str) -> AsyncIterator[_Outcome]:
        """Count a request while it runs and when it is over."""
        outcome = _Outcome()
        self.in_flight += 1
        self._meters.running.inc()
        self._meters.in_flight(source, 1)
        try:
            yield outcome
        finally:
            self.in_flight -= 1
            self._meters.running.dec()
            self._meters.in_flight(source, -1)
            self._meters.request(outcome.name, source)
            self._text = None


@dataclass
class _Outcome:
    name: str = "Completed"


def _event(payload: Json) -> bytes:
    return b"data: " + json.dumps(payload, separators=(",", ":")).encode() + b"\n\n"
