"""A client of the pod's own API port: is vLLM up, whose rules does it follow, does the model answer, how fast."""

import contextlib
import json
import time
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from typing import Any

import aiohttp

from tunewright_api.names import HEADER_PROBE
from tunewright_server.performance import Arrival
from tunewright_server.policy import KEY_HEADER, POLICY_PATH

_PROBE = {"prompt": "Hello", "max_tokens": 1, "temperature": 0}
# Every event of the stream tells how many tokens the answer has so far.
_STREAM = {"stream": True, "stream_options": {"include_usage": True, "continuous_usage_stats": True}}
_DATA = b"data: {"
_CHEAP_TIMEOUT = 5.0
# vllm:request_success_total also counts requests that were aborted or failed.
_COMPLETED = ('finished_reason="stop"', 'finished_reason="length"')
_FAILED = ('outcome="ServerError",source="client"', 'outcome="Broken",source="client"')


class EngineError(Exception):
    """vLLM did not answer as it should; the message says how."""


@dataclass(frozen=True)
class EngineMetrics:
    """Figures of vLLM's /metrics, summed over its engines, and of our middleware."""

    running: int = 0
    waiting: int = 0
    completed: int = 0
    failed: int = 0
    generated_tokens: int = 0

    @property
    def in_flight(self) -> int:
        """Requests that are not over."""
        return self.running + self.waiting


class EngineClient:
    """HTTP calls to vLLM on the loopback interface. Every call raises EngineError when it fails."""

    def __init__(self, session: aiohttp.ClientSession, port: int, served_name: str, key: str) -> None:
        self._session = session
        self._base = f"http://127.0.0.1:{port}"
        self._served_name = served_name
        self._headers = {HEADER_PROBE: "1", KEY_HEADER: key}

    async def check_health(self) -> None:
        """GET /health: the HTTP server is up and the engine's process has not reported an error. No inference."""
        await self._read("GET", "/health", _CHEAP_TIMEOUT)

    async def read_policy(self) -> str | None:
        """GET /tunewright/policy: the digest of the rules in force; None when the server knows of no rules."""
        async with self._request("GET", POLICY_PATH, _CHEAP_TIMEOUT) as response:
            text = await response.text()
        if response.status >= 500:
            raise _unexpected("GET", POLICY_PATH, response.status, text)
        try:
            digest = json.loads(text)["digest"]
        except (ValueError, KeyError, TypeError):
            return None
        return str(digest)

    async def read_exposition(self) -> str:
        """GET /metrics, as it is."""
        return await self._read("GET", "/metrics", _CHEAP_TIMEOUT)

    async def read_metrics(self) -> EngineMetrics:
        """GET /metrics, the figures that we need."""
        return parse_metrics(await self.read_exposition())

    async def complete(self, timeout: float) -> None:
        """Ask the model for one token. A text completion: every causal model has one, with or without chat template."""
        body = await self._read("POST", "/v1/completions", timeout, self._question(_PROBE))
        if '"choices":[{' not in body.replace(" ", ""):
            raise EngineError(f"a completion came back without an answer: {body[:200]}")

    async def stream(self, tokens: int, timeout: float) -> list[Arrival]:
        """Ask for so many tokens; when they came. Those that came in time, if the answer takes longer than that."""
        question = self._question(_PROBE | _STREAM | {"max_tokens": tokens, "ignore_eos": True})
        arrivals: list[Arrival] = []
        try:
            async with self._request("POST", "/v1/completions", timeout, question) as response:
                if response.status != 200:
                    raise _unexpected("POST", "/v1/completions", response.status, await response.text())
                async for line in response.content:
                    now = time.monotonic()
                    if line.startswith(_DATA) and (event := json.loads(line[len(_DATA) - 1 :]))["choices"]:
                        arrivals.append(Arrival(now, int(event["usage"]["completion_tokens"])))
        except EngineError:
            if not arrivals:
                raise
        except (ValueError, KeyError, TypeError) as error:
            raise EngineError(f"a stream came back that is none of completions: {error!r}") from error
        return arrivals

    def _question(self, body: dict[str, Any]) -> dict[str, Any]:
        return body | {"model": self._served_name}

    async def _read(self, method: str, path: str, timeout: float, json: dict[str, Any] | None = None) -> str:
        async with self._request(method, path, timeout, json) as response:
            text = await response.text()
        if response.status != 200:
            raise _unexpected(method, path, response.status, text)
        return text

    @contextlib.asynccontextmanager
    async def _request(
        self, method: str, path: str, timeout: float, json: dict[str, Any] | None = None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """An open response; what goes wrong until it is closed is an EngineError. Marked: it is no client's request."""
        try:
            async with self._session.request(
                method,
                self._base + path,
                json=json,
                headers=self._headers,
                timeout=aiohttp.ClientTimeout(total=timeout),
            ) as response:
                yield response
        except TimeoutError as error:
            raise EngineError(f"{method} {path} has not answered within {timeout:.0f} s") from error
        except aiohttp.ClientError as error:
            raise EngineError(f"{method} {path}: {error}") from error


def parse_metrics(text: str) -> EngineMetrics:
    """Pick our figures out of the Prometheus text format."""
    lines = [line for line in text.splitlines() if line.startswith(("vllm:", "tunewright_"))]
    return EngineMetrics(
        running=_total(lines, "vllm:num_requests_running"),
        waiting=_total(lines, "vllm:num_requests_waiting"),
        completed=sum(_total(lines, "vllm:request_success_total", label) for label in _COMPLETED),
        failed=sum(_total(lines, "tunewright_requests_total", label) for label in _FAILED),
        generated_tokens=_total(lines, "vllm:generation_tokens_total"),
    )


def _total(lines: Iterable[str], name: str, label: str = "") -> int:
    values = (line.rpartition(" ")[2] for line in lines if line.startswith((f"{name}{{", f"{name} ")) and label in line)
    return round(sum(float(value) for value in values))


def _unexpected(method: str, path: str, status: int, text: str) -> EngineError:
    return EngineError(f"{method} {path} answered {status}: {text[:200]}")
