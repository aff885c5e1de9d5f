"""Load on a service through the gateway: so many streamed chat requests a second, and what became of each."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, TypeVar

import aiohttp

from tests.rollouts.background import Background

T = TypeVar("T")

TIMEOUT = aiohttp.ClientTimeout(total=30)


@dataclass(frozen=True)
class Answer:
    """One request. `sent` is a time of the wall clock, the other times are seconds from there."""

    sent: float
    status: int = 0  # 0: no answer came
    first_token: float | None = None
    seconds: float = 0.0
    complete: bool = False  # the stream came to its end
    version: str = ""  # what answered
    revision: str = ""
    text: str = ""
    error: str = ""

    @property
    def good(self) -> bool:
        """Whether a user got what they asked for."""
        return self.status == 200 and self.complete


@dataclass
class Load:
    """`rate` requests a second, each at its time, whatever became of those before."""

    url: str
    host: str
    model: str
    rate: float
    prompt: str = "What is the capital of France?"
    headers: dict[str, str] = field(default_factory=dict)
    answers: list[Answer] = field(default_factory=list)
    _stop: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        """Send until `stop`, then wait for the answers."""
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(timeout=TIMEOUT, connector=connector) as session:
            flying: set[asyncio.Task[None]] = set()
            begin, sent = time.monotonic(), 0
            while not self._stop.is_set():
                task = asyncio.create_task(self._record(session))
                flying.add(task)
                task.add_done_callback(flying.discard)
                sent += 1
                await _wait(self._stop, begin + sent / self.rate - time.monotonic())
            await asyncio.gather(*flying)

    def stop(self) -> None:
        """Send no more."""
        self._stop.set()

    def failures(self) -> list[Answer]:
        """Requests whose user did not get an answer."""
        return [answer for answer in list(self.answers) if not answer.good]

    def versions(self, since: float = 0.0, until: float = float("inf")) -> Counter[str]:
        """How often each version answered requests that were sent in this span of the wall clock."""
        return Counter(one.version for one in list(self.answers) if one.version and since <= one.sent < until)

    def last(self, version: str) -> float:
        """When the last request was sent that this version answered; 0 when it answered none."""
        return max((one.sent for one in list(self.answers) if one.version == version), default=0.0)

    async def _record(self, session: aiohttp.ClientSession) -> None:
        self.answers.append(await ask(session, self.url, self.host, self.model, self.prompt, headers=self.headers))


async def ask(
    session: aiohttp.ClientSession,
    url: str,
    host: str,
    model: str,
    prompt: str,
    *,
    headers: dict[str, str] | None = None,
    path: str = "/v1/chat/completions",
    stream: bool = True,
) -> Answer:
    """One chat request."""
    chat = path.endswith("/chat/completions")
    question = {"messages": [{"role": "user", "content": prompt}]} if chat else {"prompt": prompt}
    body = {"model": model, "stream": stream, **question}
    seen: dict[str, Any] = {"sent": time.time()}
    begin = time.monotonic()
    try:
        async with session.post(f"{url}{path}", json=body, headers={"Host": host, **(headers or {})}) as response:
            seen["status"] = response.status
            if response.status != 200:
                seen["error"] = (await response.text())[:200]
            elif stream:
                await _read_stream(response, begin, seen)
            else:
                _read_chunk(await response.json(), seen)
                seen["complete"] = True
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
        seen["error"] = repr(error)
    return Answer(seconds=time.monotonic() - begin, **seen)


async def _read_stream(response: aiohttp.ClientResponse, begin: float, seen: dict[str, Any]) -> None:
    async for line in response.content:
        data = line.removeprefix(b"data: ").strip()
        if data == b"[DONE]":
            seen["complete"] = True
        elif data:
            seen.setdefault("first_token", time.monotonic() - begin)
            _read_chunk(json.loads(data), seen)


def _read_chunk(chunk: dict[str, Any], seen: dict[str, Any]) -> None:
    seen["version"], _, seen["revision"] = chunk.get("system_fingerprint", "").partition("/")
    for choice in chunk["choices"]:
        part = choice.get("delta") or choice.get("message") or {"content": choice.get("text", "")}
        seen["text"] = seen.get("text", "") + (part.get("content") or "")


async def _wait(event: asyncio.Event, seconds: float) -> None:
    if seconds <= 0:
        await asyncio.sleep(0)
        return
    try:
        await asyncio.wait_for(event.wait(), seconds)
    except TimeoutError:
        return


class Clients:
    """Runs loads in the background."""

    def __init__(self) -> None:
        self._background = Background("clients")
        self._running: dict[int, Future[None]] = {}

    def start(self, load: Load) -> Load:
        """Begin to send."""
        self._running[id(load)] = self._background.start(load.run())
        return load

    def stop(self, load: Load) -> None:
        """Send no more, and wait until every request has its answer."""
        self._background.loop.call_soon_threadsafe(load.stop)
        self._running.pop(id(load)).result(60)

    def once(self, make: Callable[[aiohttp.ClientSession], Coroutine[Any, Any, T]]) -> T:
        """Run one request."""

        async def work() -> T:
            async with aiohttp.ClientSession(timeout=TIMEOUT) as session:
                return await make(session)

        return self._background.run(work())
