"""The Kubernetes API without polling: dozens of tests wait at the same time, and one watch per kind serves them all."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any, TypeVar

import aiohttp

from e2e.cluster.apiserver import ControlPlane
from e2e.cluster.errors import ClusterError
from tests.rollouts.background import Background

Object = dict[str, Any]
T = TypeVar("T")

RETRY_SECONDS = 0.2


class GoneError(Exception):
    """The object is not there, or not the one that was meant."""


class AsyncApi:
    """A few requests as the cluster's administrator; use it within one event loop."""

    def __init__(self, plane: ControlPlane) -> None:
        self._url = plane.url
        tls = ssl.create_default_context(cafile=str(plane.ca))
        headers = {"Authorization": f"Bearer {plane.token}"}
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=tls, limit=0), headers=headers)

    async def close(self) -> None:
        await self._session.close()

    async def request(self, method: str, path: str, body: Object | None = None) -> Object:
        """The answer as JSON. Raises GoneError for 404 and 409."""
        headers = {"Content-Type": "application/merge-patch+json" if method == "PATCH" else "application/json"}
        data = None if body is None else json.dumps(body)
        async with self._session.request(method, self._url + path, data=data, headers=headers) as response:
            if response.status in {404, 409}:
                raise GoneError(f"{method} {path}")
            if response.status >= 400:
                raise ClusterError(f"{method} {path}: {response.status} {(await response.text())[:500]}")
            answer: Object = await response.json()
            return answer

    async def watch(self, path: str) -> AsyncIterator[tuple[str, Object]]:
        """Every object below `path` as MODIFIED, then every change, for ever. The kind may be served only later."""
        join = "&" if "?" in path else "?"
        while True:
            with contextlib.suppress(aiohttp.ClientError, TimeoutError, GoneError, ClusterError):
                listed = await self.request("GET", path)
                for found in listed["items"]:
                    yield "MODIFIED", found
                version = listed["metadata"]["resourceVersion"]
                async for event in self._stream(f"{path}{join}watch=true&resourceVersion={version}"):
                    yield event
            await asyncio.sleep(RETRY_SECONDS)

    async def _stream(self, path: str) -> AsyncIterator[tuple[str, Object]]:
        forever = aiohttp.ClientTimeout(total=None)
        async with self._session.get(self._url + path, timeout=forever) as response:
            if response.status != 200:  # 429 while the storage of a new kind is being made ready
                return
            async for line in response.content:
                event = json.loads(line)
                if event["type"] == "ERROR":
                    return
                yield event["type"], event["object"]


Listener = Callable[[str, Object], None]


class Mirror:
    """The newest state of some kinds. `paths`: plural -> path of the list."""

    def __init__(self, plane: ControlPlane, paths: Mapping[str, str]) -> None:
        self._plane = plane
        self._objects: dict[tuple[str, str, str], Object] = {}
        self._changed = threading.Condition()
        self._listeners: list[Listener] = []
        self._background = Background("mirror")
        self._tasks = [self._background.start(self._follow(plural, path)) for plural, path in paths.items()]

    def stop(self) -> None:
        """Watch no more."""
        for task in self._tasks:
            task.cancel()

    def get(self, plural: str, namespace: str, name: str) -> Object | None:
        """The object, or None."""
        return self._objects.get((plural, namespace, name))

    def all(self, plural: str) -> list[Object]:
        """Every object of a kind."""
        return [found for (kind, _, _), found in list(self._objects.items()) if kind == plural]

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Call with (plural, object) at each change; the result of this call ends it."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def wait(self, what: str, check: Callable[[], T], timeout: float, hint: Callable[[], str] = lambda: "") -> T:
        """The first true value of `check`, which is asked at every change, and now and then."""
        deadline = time.monotonic() + timeout
        with self._changed:
            while not (value := check()):
                for task in self._tasks:
                    if task.done():
                        task.result()  # a watch that ended is no reason to wait
                left = deadline - time.monotonic()
                if left <= 0:
                    raise ClusterError(f"{what}: not so after {timeout:.0f} s. {hint()}")
                self._changed.wait(min(left, 0.5))
        return value

    async def _follow(self, plural: str, path: str) -> None:
        api = AsyncApi(self._plane)
        try:
            async for kind, seen in api.watch(path):
                self._saw(plural, kind, seen)
        finally:
            await api.close()

    def _saw(self, plural: str, kind: str, seen: Object) -> None:
        key = plural, seen["metadata"]["namespace"], seen["metadata"]["name"]
        with self._changed:
            if kind == "DELETED":
                self._objects.pop(key, None)
            else:
                self._objects[key] = seen
            self._changed.notify_all()
        if kind != "DELETED":
            for listener in list(self._listeners):
                listener(plural, seen)


@contextlib.contextmanager
def running_mirror(plane: ControlPlane, paths: Mapping[str, str]) -> Iterator[Mirror]:
    """A mirror for the time of the block."""
    mirror = Mirror(plane, paths)
    try:
        yield mirror
    finally:
        mirror.stop()
