"""People who use a service while it changes: streamed chat requests, one after the other, and what became of each."""

from __future__ import annotations

import asyncio
import itertools
import json
import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType

import aiohttp

TIMEOUT = aiohttp.ClientTimeout(total=120)


@dataclass(frozen=True)
class Exchange:
    """One request: when it was sent (seconds of the wall clock), how long its first token and its end took, and what
    went wrong (nothing: an empty text)."""

    sent: float
    seconds: float
    first_token: float | None = None
    failure: str = ""


@dataclass(frozen=True)
class Summary:
    """All requests of a load. Times are seconds; the percentiles are those of answered requests, by nearest rank."""

    requests: int
    failures: tuple[str, ...]
    seconds: float
    first_token_p50: float
    first_token_p95: float


def summarize(exchanges: Sequence[Exchange]) -> Summary:
    """The figures of a load."""
    tokens = sorted(one.first_token for one in exchanges if one.first_token is not None)
    begin = min((one.sent for one in exchanges), default=0.0)
    end = max((one.sent + one.seconds for one in exchanges), default=0.0)
    return Summary(
        requests=len(exchanges),
        failures=tuple(one.failure for one in exchanges if one.failure),
        seconds=end - begin,
        first_token_p50=_percentile(tokens, 50),
        first_token_p95=_percentile(tokens, 95),
    )


def _percentile(ordered: Sequence[float], percent: int) -> float:
    return ordered[math.ceil(len(ordered) * percent / 100) - 1] if ordered else math.nan


class Load:
    """`clients` people ask the prompts in turn, each the next one when the last answer is complete.

    It runs in a thread of its own while the `with` block does; at its end every request has had its answer. Nothing is
    tried a second time.
    """

    def __init__(
        self, url: str, host: str, model: str, prompts: Sequence[str], *, clients: int = 4, max_tokens: int = 8
    ) -> None:
        self._url = f"{url}/v1/chat/completions"
        self._headers = {"Host": host}
        self._model = model
        self._prompts = itertools.cycle(prompts)
        self._clients = clients
        self._max_tokens = max_tokens
        self._exchanges: list[Exchange] = []
        self._stopped = False
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="load", daemon=True)

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped = True
        self._thread.join()

    @property
    def exchanges(self) -> list[Exchange]:
        """The requests that have ended so far."""
        return list(self._exchanges)

    def wait_for(self, requests: int, *, alive: Callable[[], None] = lambda: None) -> None:
        """Return once so many requests have ended; `alive` is called meanwhile and may raise."""
        while len(self._exchanges) < requests:
            alive()
            self._thread.join(0.2)

    async def _run(self) -> None:
        # One connection for each client: a pool would hide that a server closes them.
        async with aiohttp.ClientSession(timeout=TIMEOUT, headers=self._headers) as session:
            await asyncio.gather(*(self._client(session) for _ in range(self._clients)))

    async def _client(self, session: aiohttp.ClientSession) -> None:
        for prompt in self._prompts:
            if self._stopped:
                return
            self._exchanges.append(await self._ask(session, prompt))

    async def _ask(self, session: aiohttp.ClientSession, prompt: str) -> Exchange:
        body = {
            "model": self._model,
            "messages": [{"role": "user", "content": prompt}],
            "max_tokens": self._max_tokens,
            "temperature": 0,
            "stream": True,
        }
        sent, begin = time.time(), time.monotonic()
        first: float | None = None
        failure = "the stream ended without [DONE]"
        try:
            async with session.post(self._url, json=body) as response:
                if response.status != 200:
                    failure = f"{response.status}: {(await response.text())[:200]}"
                else:
                    async for line in response.content:
                        if failure_of := _failure(line):
                            failure = failure_of
                            break
                        if line.startswith(b"data: [DONE]"):
                            failure = ""
                        elif first is None and line.startswith(b"data: "):
                            first = time.monotonic() - begin
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            failure = f"{type(error).__name__}: {error}"
        return Exchange(sent, time.monotonic() - begin, first, failure)


def _failure(line: bytes) -> str:
    """What an event of the stream says went wrong in the middle of an answer."""
    if b'"error"' not in line:
        return ""
    error = json.loads(line.removeprefix(b"data: ")).get("error")
    return f"in the stream: {error}" if error else ""
