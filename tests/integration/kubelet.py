"""A kubelet without containers: it runs the pods of the operator in the status only, as a script of the test says.

The scheduler and the Job controller are the real ones; what a container would have done (how long it ran, its exit
code, its termination message) comes from `Play`.
"""

from __future__ import annotations

import contextlib
import http.server
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from e2e.cluster.apiserver import ControlPlane
from e2e.cluster.rest import ApiError
from tunewright_api.names import LABEL_ATTEMPT, LABEL_MANAGED_BY, LABEL_STAGE, MANAGED_BY, ExitCode
from tunewright_api.results import (
    EvaluateResult,
    ExportResult,
    MetricPair,
    Outcome,
    PrepareResult,
    StageResult,
    TrainResult,
    VerifyResult,
)

Object = dict[str, Any]

DIGEST = "sha256:" + "d" * 64
POLL_SECONDS = 0.1
RESULTS = {
    "prepare": StageResult(
        outcome=Outcome.SUCCEEDED,
        prepare=PrepareResult(records=300, train=270, validation=30, truncated=2, digest=DIGEST),
    ),
    "train": StageResult(
        outcome=Outcome.SUCCEEDED, train=TrainResult(steps=50, loss=1.25, seconds=12.5, checkpoint_step=50)
    ),
    "evaluate": StageResult(
        outcome=Outcome.SUCCEEDED,
        evaluate=EvaluateResult(
            records=30,
            metrics=[
                MetricPair.model_validate({"metric": "Loss", "base": 4.5, "tuned": 1.25}),
                MetricPair.model_validate({"metric": "RougeL", "base": 0.125, "tuned": 0.5}),
            ],
        ),
    ),
    "export": StageResult(outcome=Outcome.SUCCEEDED, export=ExportResult(digest=DIGEST, size_bytes=1024, kind="Full")),
    "verify": StageResult(outcome=Outcome.SUCCEEDED, verify=VerifyResult(digest=DIGEST, size_bytes=1024)),
}


@dataclass(frozen=True)
class Play:
    """What a container does: run so long (None: until it is stopped), then end like this."""

    seconds: float | None = 0.2
    exit_code: int = 0
    message: str | None = None  # None: the stage's result


Script = Callable[[str, int, int], Play | None]


def by_default(stage: str, attempt: int, index: int) -> Play | None:
    """Every stage succeeds."""
    return None


def failure(code: ExitCode, message: str) -> Play:
    """A container that ends with one of our exit codes and says why."""
    result = StageResult(outcome=Outcome.FAILED, reason=code.reason, message=message, rank=0)
    return Play(0.2, code.value, result.to_message())


@dataclass
class Kubelet:
    """Plays all nodes of a control plane. `scripts` by namespace: (stage, attempt, index) -> Play, None for success."""

    plane: ControlPlane
    scripts: dict[str, Script] = field(default_factory=dict)
    _started: dict[str, float] = field(default_factory=dict)

    def turn(self) -> None:
        """Look once at every pod of the operator."""
        query = f"labelSelector={LABEL_MANAGED_BY}%3D{MANAGED_BY}"
        for pod in self.plane.api.get(f"/api/v1/pods?{query}")["items"]:
            with contextlib.suppress(ApiError):  # gone, or changed meanwhile: the next turn sees it
                self._look(pod)

    def kill(self, namespace: str, pod: str, exit_code: int = 137) -> None:
        """The container of a pod is killed."""
        path = f"/api/v1/namespaces/{namespace}/pods/{pod}"
        self._end(self.plane.api.get(path), Play(0, exit_code, ""))

    def _look(self, pod: Object) -> None:
        phase, deleted = pod["status"].get("phase"), "deletionTimestamp" in pod["metadata"]
        if deleted:
            self._stop(pod)
        elif phase == "Pending" and pod["spec"].get("nodeName"):
            self._started[pod["metadata"]["uid"]] = time.monotonic()
            self._patch(pod, _running())
        elif phase == "Running":
            play = self._play(pod)
            started = self._started.setdefault(pod["metadata"]["uid"], time.monotonic())
            if play.seconds is not None and time.monotonic() - started >= play.seconds:
                self._end(pod, play)

    def _play(self, pod: Object) -> Play:
        labels = pod["metadata"]["labels"]
        index = int(labels.get("batch.kubernetes.io/job-completion-index", 0))
        script = self.scripts.get(pod["metadata"]["namespace"], by_default)
        return script(labels[LABEL_STAGE], int(labels.get(LABEL_ATTEMPT, 1)), index) or Play()

    def _stop(self, pod: Object) -> None:
        """SIGTERM: a trainer saves a checkpoint and leaves; then the pod is removed."""
        if pod["status"].get("phase") in {"Pending", "Running"}:
            self._end(pod, Play(0, ExitCode.PREEMPTED.value, ""))
        metadata = pod["metadata"]
        path = f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}"
        options = {"gracePeriodSeconds": 0, "preconditions": {"uid": metadata["uid"]}}
        self.plane.api.request("DELETE", path, options)

    def _end(self, pod: Object, play: Play) -> None:
        message = RESULTS[pod["metadata"]["labels"][LABEL_STAGE]].to_message() if play.message is None else play.message
        terminated = {
            "exitCode": play.exit_code,
            "reason": "Completed" if play.exit_code == 0 else "Error",
            "message": message,
            "startedAt": _now(),
            "finishedAt": _now(),
        }
        self._patch(pod, _status("Succeeded" if play.exit_code == 0 else "Failed", {"terminated": terminated}))

    def _patch(self, pod: Object, status: Object) -> None:
        metadata = pod["metadata"]
        path = f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}/status"
        self.plane.api.merge(path, {"metadata": {"uid": metadata["uid"]}, "status": status})


def _running() -> Object:
    return _status("Running", {"running": {"startedAt": _now()}}) | {
        "podIP": "127.0.0.1",
        "podIPs": [{"ip": "127.0.0.1"}],
    }


def _status(phase: str, state: Object) -> Object:
    return {
        "phase": phase,
        "startTime": _now(),
        "conditions": [{"type": "Ready", "status": str(phase == "Running"), "lastTransitionTime": _now()}],
        "containerStatuses": [
            {
                "name": "trainer",
                "image": "trainer",
                "imageID": "",
                "ready": phase == "Running",
                "restartCount": 0,
                "state": state,
            }
        ],
    }


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@contextlib.contextmanager
def running_kubelet(plane: ControlPlane) -> Iterator[Kubelet]:
    """A kubelet that works in the background."""
    kubelet, stop = Kubelet(plane), threading.Event()

    def work() -> None:
        while not stop.wait(POLL_SECONDS):
            with contextlib.suppress(OSError, ApiError):
                kubelet.turn()

    thread = threading.Thread(target=work, name="kubelet", daemon=True)
    thread.start()
    yield kubelet
    stop.set()
    thread.join()


@contextlib.contextmanager
def serving_progress(report: Object) -> Iterator[int]:
    """GET /progress of a trainer: the port of a server that answers `report`, as the test changes it."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps(report).encode()
            self.send_response(200 if self.path == "/progress" else 404)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()
