"""A client of the pod's own API port: is vLLM up, does the model answer, how many requests run."""

from collections.abc import Iterable
from dataclasses import dataclass

import aiohttp

_PROBE = {"prompt": "Hello", "max_tokens": 1, "temperature": 0}
_CHEAP_TIMEOUT = 5.0
# vllm:request_success_total also counts requests that were aborted or failed.
_COMPLETED = ('finished_reason="stop"', 'finished_reason="length"')


class EngineError(Exception):
    """vLLM did not answer as it should; the message says how."""


@dataclass(frozen=True)
class EngineMetrics:
    """Figures of vLLM's /metrics, summed over its engines."""

    running: int = 0
    waiting: int = 0
    completed: int = 0
    generated_tokens: int = 0

    @property
    def in_flight(self) -> int:
        """Requests that are not over."""
        return self.running + self.waiting


class EngineClient:
    """HTTP calls to vLLM on the loopback interface. Every call raises EngineError when it fails."""

    def __init__(self, session: aiohttp.ClientSession, port: int, served_name: str) -> None:
        self._session = session
        self._base = f"http://127.0.0.1:{port}"
        self._served_name = served_name

    async def check_health(self) -> None:
        """GET /health: the HTTP server is up and the engine's process has not reported an error. No inference."""
        await self._request("GET", "/health", _CHEAP_TIMEOUT)

    async def read_metrics(self) -> EngineMetrics:
        """GET /metrics."""
        return parse_metrics(await self._request("GET", "/metrics", _CHEAP_TIMEOUT))

    async def complete(self, timeout: float) -> None:
        """Ask the model for one token. A text completion: every causal model has one, with or without chat template."""
        body = await self._request("POST", "/v1/completions", timeout, _PROBE | {"model": self._served_name})
        if '"choices":[{' not in body.replace(" ", ""):
            raise EngineError(f"a completion came back without an answer: {body[:200]}")

    async def _request(self, method: str, path: str, timeout: float, json: dict[str, object] | None = None) -> str:
        try:
            async with self._session.request(
                method, self._base + path, json=json, timeout=aiohttp.ClientTimeout(total=timeout)
            ) as response:
                text = await response.text()
        except TimeoutError as error:
            raise EngineError(f"{method} {path} has not answered within {timeout:.0f} s") from error
        except aiohttp.ClientError as error:
            raise EngineError(f"{method} {path}: {error}") from error
        if response.status != 200:
            raise EngineError(f"{method} {path} answered {response.status}: {text[:200]}")
        return text


def parse_metrics(text: str) -> EngineMetrics:
    """Pick our figures out of the Prometheus text format."""
    lines = [line for line in text.splitlines() if line.startswith("vllm:")]
    return EngineMetrics(
        running=_total(lines, "vllm:num_requests_running"),
        waiting=_total(lines, "vllm:num_requests_waiting"),
        completed=sum(_total(lines, "vllm:request_success_total", label) for label in _COMPLETED),
        generated_tokens=_total(lines, "vllm:generation_tokens_total"),
    )


def _total(lines: Iterable[str], name: str, label: str = "") -> int:
    values = (line.rpartition(" ")[2] for line in lines if line.startswith((f"{name}{{", f"{name} ")) and label in line)
    return round(sum(float(value) for value in values))
