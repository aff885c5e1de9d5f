"""A kubelet for server pods without containers: each pod gets an address, a scripted model server and a true status.

Scheduler, Deployment and EndpointSlice controllers are the real ones. What a container does comes from a `Behaviour`,
which a test holds and changes; pods that verify a ModelVersion end as `verify` says.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from e2e.cluster.apiserver import ControlPlane
from tests.rollouts.background import Background
from tests.rollouts.behaviour import Behaviour, Ending, Waiting
from tests.rollouts.model_server import ModelServer
from tests.rollouts.watching import AsyncApi, GoneError
from tunewright_api.names import CONFIG_FILE, LABEL_KIND, LABEL_MANAGED_BY, LABEL_NAME, LABEL_VERSION, MANAGED_BY
from tunewright_api.results import Outcome, StageResult, VerifyResult
from tunewright_api.server_config import ServerConfig

Object = dict[str, Any]

DIGEST = "sha256:" + "a" * 64
SELECTOR = f"labelSelector={LABEL_MANAGED_BY}%3D{MANAGED_BY}"
TICK_SECONDS = 0.05
# Endpoints are withdrawn while the server still takes requests, as with the preStop of the real pod.
DRAIN_SECONDS = 1.5
BACKOFF_SECONDS = (0.3, 0.6, 1.0)

# (configuration, number of this pod among those of its version) -> behaviour
Script = Callable[[ServerConfig, int], Behaviour]
Verification = Callable[[str], StageResult | None]


def verified(version: str) -> StageResult | None:
    """The files are what the record says."""
    return StageResult(outcome=Outcome.SUCCEEDED, verify=VerifyResult(digest=DIGEST, size_bytes=1))


@dataclass
class Scripts:
    """What happens to the pods of one InferenceService, and to those that verify a ModelVersion. A verification that
    is None goes on for ever."""

    server: Script = lambda config, number: Behaviour()
    verify: Verification = verified


@dataclass
class Pod:
    """One pod as the watch last showed it, and the server that plays it."""

    object: Object
    number: int
    deleted: bool = False  # it shall go
    server: ModelServer | None = None
    crash: Ending | None = None  # its container is to end once

    @property
    def namespace(self) -> str:
        return str(self.object["metadata"]["namespace"])

    @property
    def name(self) -> str:
        return str(self.object["metadata"]["name"])

    @property
    def uid(self) -> str:
        return str(self.object["metadata"]["uid"])

    @property
    def labels(self) -> dict[str, str]:
        return dict(self.object["metadata"].get("labels") or {})

    @property
    def bound(self) -> bool:
        """Whether the scheduler has found a node."""
        return bool(self.object["spec"].get("nodeName"))


@dataclass
class Container:
    """containerStatuses[0] as it grows."""

    name: str
    restarts: int = 0
    last: Object = field(default_factory=dict)

    def status(self, state: Object, *, ready: bool = False) -> Object:
        """The list for the pod's status."""
        return {
            "containerStatuses": [
                {
                    "name": self.name,
                    "image": "registry.example/server:test",
                    "imageID": "sha256:0",
                    "ready": ready,
                    "started": "running" in state,
                    "restartCount": self.restarts,
                    "state": state,
                    "lastState": self.last,
                }
            ]
        }


class ServerKubelet:
    """All nodes of a control plane. `scripts` by namespace and owner of the pod, which may be left out for defaults.

    `scrapes`: how often Prometheus must have read a server before it is ready (see ModelServer.ready).
    """

    def __init__(self, plane: ControlPlane, addresses: Iterator[str], *, scrapes: int = 0) -> None:
        self.scripts: dict[tuple[str, str], Scripts] = {}
        self._plane = plane
        self._addresses = addresses
        self._scrapes = scrapes
        self._pods: dict[str, Pod] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._numbers: dict[tuple[str, str], int] = {}
        self._background = Background("kubelet")
        self._watching = asyncio.run_coroutine_threadsafe(self._watch(), self._background.loop)
        self.errors: list[str] = []

    # --- what a test asks and does --------------------------------------------------------------

    def pods(self, namespace: str, version: str | None = None) -> list[Pod]:
        """The server pods that exist, of one version or of all."""
        return [
            pod
            for pod in list(self._pods.values())
            if pod.namespace == namespace
            and version in {None, pod.labels.get(LABEL_VERSION)}
            and LABEL_VERSION in pod.labels
        ]

    def crash(self, namespace: str, version: str, ending: Ending) -> None:
        """End the containers of a version once; they start again."""
        for pod in self.pods(namespace, version):
            pod.crash = ending

    def answering(self, namespace: str) -> list[Pod]:
        """The pods that would answer a completion now."""
        return [pod for pod in self.pods(namespace) if pod.server is not None and pod.server.answers]

    def stop(self) -> None:
        """Leave everything as it is."""
        self._watching.cancel()
        self._background.run(self._cancel())

    async def _cancel(self) -> None:
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    # --- pods come and go -----------------------------------------------------------------------

    async def _watch(self) -> None:
        self._api = AsyncApi(self._plane)
        try:
            async for kind, pod in self._api.watch(f"/api/v1/pods?{SELECTOR}"):
                self._saw(kind, pod)
        finally:
            await self._api.close()

    def _saw(self, kind: str, seen: Object) -> None:
        uid = seen["metadata"]["uid"]
        if kind == "DELETED":
            if pod := self._pods.pop(uid, None):
                pod.deleted = True
            return
        if uid not in self._pods:
            self._pods[uid] = pod = Pod(seen, self._number(seen))
            self._tasks[uid] = asyncio.create_task(self._play(pod))
            self._tasks[uid].add_done_callback(lambda _: self._tasks.pop(uid, None))
        self._pods[uid].object = seen
        self._pods[uid].deleted |= "deletionTimestamp" in seen["metadata"]

    def _number(self, pod: Object) -> int:
        key = pod["metadata"]["namespace"], (pod["metadata"].get("labels") or {}).get(LABEL_VERSION, "")
        self._numbers[key] = self._numbers.get(key, -1) + 1
        return self._numbers[key]

    # --- the life of one pod --------------------------------------------------------------------

    async def _play(self, pod: Pod) -> None:
        try:
            await _until(lambda: pod.bound or pod.deleted)
            if not pod.deleted:
                await (self._verify(pod) if pod.labels.get(LABEL_KIND) == "ModelVersion" else self._serve(pod))
            await self._remove(pod)
        except GoneError:
            return
        except asyncio.CancelledError:
            raise
        except Exception as error:
            self.errors.append(f"{pod.namespace}/{pod.name}: {error!r}")
            raise
        finally:
            if pod.server is not None:
                await pod.server.stop()

    async def _verify(self, pod: Pod) -> None:
        container = Container(pod.object["spec"]["containers"][0]["name"])
        while (result := self._scripts(pod).verify(pod.labels[LABEL_NAME])) is None:
            await asyncio.sleep(TICK_SECONDS)
            if pod.deleted:
                return
        failed = result.outcome is Outcome.FAILED
        end = _terminated(Ending(77 if failed else 0, result.to_message(), "Error" if failed else "Completed"))
        await self._write(pod, "Failed" if failed else "Succeeded", container.status({"terminated": end}))
        await _until(lambda: pod.deleted)

    async def _serve(self, pod: Pod) -> None:
        """Start the container again and again until the pod is deleted."""
        address, config = next(self._addresses), await self._config(pod)
        container = Container(pod.object["spec"]["containers"][0]["name"])
        while not pod.deleted:
            behaviour = self._scripts(pod).server(config, pod.number)
            if behaviour.waiting:
                await self._wait(pod, container, behaviour, behaviour.waiting)
                continue
            pod.server = ModelServer(address, config, behaviour, scrapes=self._scrapes)
            ending = await self._run(pod, container, pod.server)
            if ending is None:
                await _drain(pod.server)
                return
            await pod.server.stop()
            pod.server, pod.crash = None, None
            await self._back_off(pod, container, ending)

    async def _wait(self, pod: Pod, container: Container, behaviour: Behaviour, why: Waiting) -> None:
        state = {"waiting": {"reason": why.reason, "message": why.message}}
        await self._write(pod, "Pending", container.status(state))
        await _until(lambda: pod.deleted or behaviour.waiting != why)

    async def _run(self, pod: Pod, container: Container, server: ModelServer) -> Ending | None:
        """One run of the container: how it ended, or None when the pod is to go."""
        script, shown = server.behaviour, None
        running = {"running": {"startedAt": _now()}}
        await server.start()
        loop = asyncio.get_running_loop()
        begin = loop.time()
        while not pod.deleted:
            if ending := pod.crash or script.ending:
                return ending
            if script.loads and not server.loaded and loop.time() - begin >= script.load_seconds:
                await server.load()
            if server.ready is not shown:
                shown = server.ready
                await self._write(pod, "Running", container.status(running, ready=shown), server.address)
            await asyncio.sleep(TICK_SECONDS)
        server.draining = True
        return None

    async def _back_off(self, pod: Pod, container: Container, ending: Ending) -> None:
        terminated = {"terminated": _terminated(ending)}
        await self._write(pod, "Running", container.status(terminated))
        container.last = terminated
        again = asyncio.get_running_loop().time() + BACKOFF_SECONDS[min(container.restarts, len(BACKOFF_SECONDS) - 1)]
        waiting = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off restarting failed container"}}
        await self._write(pod, "Running", container.status(waiting))
        await _until(lambda: pod.deleted or asyncio.get_running_loop().time() >= again)
        container.restarts += 1

    async def _config(self, pod: Pod) -> ServerConfig:
        (name,) = (v["configMap"]["name"] for v in pod.object["spec"]["volumes"] if "configMap" in v)
        found = await self._api.request("GET", f"/api/v1/namespaces/{pod.namespace}/configmaps/{name}")
        return ServerConfig.model_validate_json(found["data"][CONFIG_FILE])

    def _scripts(self, pod: Pod) -> Scripts:
        return self.scripts.get((pod.namespace, pod.labels[LABEL_NAME]), Scripts())

    # --- the API --------------------------------------------------------------------------------

    async def _write(self, pod: Pod, phase: str, containers: Object, address: str | None = None) -> None:
        ready = any(status["ready"] for status in containers["containerStatuses"])
        conditions = {"PodScheduled": True, "Initialized": True, "ContainersReady": ready, "Ready": ready}
        status: Object = {
            "phase": phase,
            "startTime": pod.object["metadata"]["creationTimestamp"],
            "conditions": [
                {"type": kind, "status": str(value), "lastTransitionTime": _now()} for kind, value in conditions.items()
            ],
            **containers,
        }
        if address:
            status |= {"podIP": address, "podIPs": [{"ip": address}]}
        path = f"/api/v1/namespaces/{pod.namespace}/pods/{pod.name}/status"
        await self._api.request("PATCH", path, {"metadata": {"uid": pod.uid}, "status": status})

    async def _remove(self, pod: Pod) -> None:
        await _until(lambda: pod.deleted)
        path = f"/api/v1/namespaces/{pod.namespace}/pods/{pod.name}"
        await self._api.request("DELETE", path, {"gracePeriodSeconds": 0, "preconditions": {"uid": pod.uid}})


async def _until(check: Callable[[], bool]) -> None:
    while not check():  # noqa: ASYNC110 (a test changes behaviours in another thread)
        await asyncio.sleep(TICK_SECONDS)


async def _drain(server: ModelServer) -> None:
    """Requests still come while the endpoints are withdrawn; then those that run may end."""
    await asyncio.sleep(DRAIN_SECONDS)
    await _until(lambda: server.in_flight == 0)


def _terminated(ending: Ending) -> Object:
    return {
        "exitCode": ending.exit_code,
        "reason": ending.reason,
        "message": ending.message,
        "startedAt": _now(),
        "finishedAt": _now(),
    }


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@contextlib.contextmanager
def running_kubelet(plane: ControlPlane, addresses: Iterator[str], *, scrapes: int = 0) -> Iterator[ServerKubelet]:
    """A kubelet for the time of the block."""
    kubelet = ServerKubelet(plane, addresses, scrapes=scrapes)
    try:
        yield kubelet
    finally:
        kubelet.stop()
