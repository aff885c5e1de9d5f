"""Asks every service that says it is Ready for a completion, all the time: `Ready` must not be True while it fails."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import aiohttp

from tests.rollouts.background import Background
from tests.rollouts.watching import Mirror
from tunewright_api.names import HEADER_PROBE, PORT_SERVER

Object = dict[str, Any]
Key = tuple[str, str]

EVERY_SECONDS = 0.25
TIMEOUT = aiohttp.ClientTimeout(total=2)


class Witness:
    """For how long each service said Ready while a completion through its Service's endpoints failed."""

    def __init__(self, mirror: Mirror) -> None:
        self._mirror = mirror
        self._since: dict[Key, float] = {}
        self._worst: dict[Key, tuple[float, str]] = {}
        self._asked: dict[Key, int] = {}
        self._background = Background("witness")
        self._task = self._background.start(self._watch())

    def longest_lie(self, namespace: str, name: str) -> tuple[float, str]:
        """Seconds on end, and how a completion failed. What Kubernetes and the operator need to notice is part of
        it."""
        return self._worst.get((namespace, name), (0.0, ""))

    def asked(self, namespace: str, name: str) -> int:
        """Completions that were asked for while the service said Ready."""
        return self._asked.get((namespace, name), 0)

    def stop(self) -> None:
        """Ask no more."""
        self._task.cancel()

    async def _watch(self) -> None:
        async with aiohttp.ClientSession(timeout=TIMEOUT) as session:
            while True:
                services = self._mirror.all("inferenceservices")
                await asyncio.gather(*(self._look(session, found) for found in services if _is_ready(found)))
                for found in services:
                    if not _is_ready(found):
                        self._since.pop(_key(found), None)
                await asyncio.sleep(EVERY_SECONDS)

    async def _look(self, session: aiohttp.ClientSession, found: Object) -> None:
        key = _key(found)
        self._asked[key] = self._asked.get(key, 0) + 1
        problem = await self._problem(session, key)
        if problem is None:
            self._since.pop(key, None)
            return
        now = self._mirror.get("inferenceservices", *key)
        if now is not None and _is_ready(now):
            seconds = time.monotonic() - self._since.setdefault(key, time.monotonic())
            self._worst[key] = max(self._worst.get(key, (0.0, "")), (seconds, problem))

    async def _problem(self, session: aiohttp.ClientSession, key: Key) -> str | None:
        """How a completion fails at every endpoint; None when it comes back."""
        namespace, name = key
        problems = []
        for address in self._endpoints(namespace, name):
            url = f"http://{address}:{PORT_SERVER}/v1/completions"
            body = {"model": name, "prompt": "Hello", "max_tokens": 1}
            try:
                async with session.post(url, json=body, headers={HEADER_PROBE: "1"}) as response:
                    if response.status == 200:
                        return None
                    problems.append(f"{address}: {response.status}")
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                problems.append(f"{address}: {error!r}")
        return "; ".join(problems) or "the Service has no ready endpoint"

    def _endpoints(self, namespace: str, service: str) -> Iterator[str]:
        for found in self._mirror.all("endpointslices"):
            metadata = found["metadata"]
            if (metadata["namespace"], metadata["labels"].get("kubernetes.io/service-name")) == (namespace, service):
                for endpoint in found.get("endpoints") or ():
                    if endpoint["conditions"].get("ready"):
                        yield from endpoint["addresses"]


def _key(found: Object) -> Key:
    return found["metadata"]["namespace"], found["metadata"]["name"]


def _is_ready(found: Object) -> bool:
    conditions = (found.get("status") or {}).get("conditions") or ()
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


@contextmanager
def watching(mirror: Mirror) -> Iterator[Witness]:
    """A witness for the time of the block."""
    witness = Witness(mirror)
    try:
        yield witness
    finally:
        witness.stop()
