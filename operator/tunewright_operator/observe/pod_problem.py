"""What keeps a pod from its work, read from its status: one `Problem`, or None.

Ordered tiny checks, first hit wins. A problem is `final` when waiting does not help: somebody must change something.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from tunewright_api.names import ExitCode
from tunewright_api.results import StageResult

Manifest = dict[str, Any]

# Restarts after which a crash is taken for a loop that does not end by itself.
CRASH_LOOP_RESTARTS = 3

_NEVER_PULLED = {"ErrImageNeverPull", "InvalidImageName"}
_SIGNALS = {137: "SIGKILL", 139: "SIGSEGV", 134: "SIGABRT", 143: "SIGTERM"}


@dataclass(frozen=True)
class Problem:
    """Why a pod does not do its work, and what to do about it."""

    pod: str
    reason: str
    message: str
    final: bool = False
    exit_code: int | None = None
    time: str = ""
    container: str = ""  # of the pod's init containers, if it is one of these: nothing of ours runs there


def pod_problem(pod: Manifest) -> Problem | None:
    """The problem of one pod, or None while it works or has hope to."""
    return next((problem for check in _CHECKS if (problem := check(pod))), None)


def worst_problem(pods: Iterable[Manifest]) -> Problem | None:
    """The problem that matters most among these pods: a final one first, then the newest."""
    problems = [problem for pod in pods if (problem := pod_problem(pod))]
    return max(problems, key=lambda p: (p.final, p.exit_code is not None, p.time, p.pod), default=None)


def last_termination(pod: Manifest) -> Problem | None:
    """How the pod's containers last failed, whether or not they run again."""
    failures = [
        _describe(pod, status, terminated)
        for status in container_statuses(pod)
        if (terminated := _terminated(status)) and terminated.get("exitCode")
    ]
    return max(failures, key=lambda p: p.time, default=None)


def _unschedulable(pod: Manifest) -> Problem | None:
    for condition in pod.get("status", {}).get("conditions") or ():
        if condition["type"] == "PodScheduled" and condition.get("reason") == "Unschedulable":
            message = f"no node takes the pod: {condition.get('message', '')}"
            return Problem(_name(pod), "Unschedulable", message, time=condition.get("lastTransitionTime") or "")
    return None


def _image(pod: Manifest) -> Problem | None:
    for status in container_statuses(pod):
        waiting = status.get("state", {}).get("waiting") or {}
        reason = waiting.get("reason", "")
        if reason in {"ErrImagePull", "ImagePullBackOff"} | _NEVER_PULLED:
            detail = waiting.get("message") or "no further message"
            message = (
                f"image {status.get('image')} cannot be pulled ({detail}): correct the image in the operator's "
                "chart values, or make it available to the node"
            )
            return Problem(_name(pod), "ImageNotPulled", message, final=reason in _NEVER_PULLED)
    return None


def _container_config(pod: Manifest) -> Problem | None:
    for status in container_statuses(pod):
        waiting = status.get("state", {}).get("waiting") or {}
        if waiting.get("reason") in {"CreateContainerConfigError", "CreateContainerError", "RunContainerError"}:
            cause = waiting.get("message") or "the node does not say why"
            message = f"the container cannot be created ({cause}): once that is mended, the node tries again by itself"
            return Problem(_name(pod), waiting["reason"], message)
    return None


def _crashed(pod: Manifest) -> Problem | None:
    """A container that ended badly and is not ready (again)."""
    for status in container_statuses(pod):
        terminated = _terminated(status)
        if terminated and terminated.get("exitCode") and not status.get("ready"):
            return _describe(pod, status, terminated)
    return None


def _evicted(pod: Manifest) -> Problem | None:
    status = pod.get("status", {})
    if status.get("phase") == "Failed" and status.get("reason"):
        return Problem(_name(pod), status["reason"], status.get("message") or "the pod was ended by its node")
    return None


_CHECKS: tuple[Callable[[Manifest], Problem | None], ...] = (
    _crashed,
    _evicted,
    _image,
    _container_config,
    _unschedulable,
)


def _describe(pod: Manifest, status: Manifest, terminated: Manifest) -> Problem:
    code = terminated["exitCode"]
    loop = status.get("restartCount", 0) >= CRASH_LOOP_RESTARTS
    init = status["name"] if status in _init_statuses(pod) else ""
    known = None if init else _exit_code(code)
    reason, message = _cause(terminated, known, init)
    final = loop or (known is not None and not known.retriable)
    return Problem(_name(pod), reason, message, final, code, terminated.get("finishedAt") or "", init)


def _cause(terminated: Manifest, known: ExitCode | None, init: str) -> tuple[str, str]:
    """(reason, message): our own result if the container left one, else what Kubernetes and the log say."""
    text = terminated.get("message") or ""
    if init:
        return "ContainerFailed", f"init container {init} {_end(terminated)}"
    result = StageResult.from_message(text)
    if result is not None and result.message:
        return result.reason or (known.reason if known else "ContainerFailed"), result.message
    if terminated.get("reason") == "OOMKilled":
        return "OutOfMemory", "the container needed more memory than resources.memory allows"
    return known.reason if known else "ContainerFailed", f"the container {_end(terminated)}"


def _end(terminated: Manifest) -> str:
    code = terminated["exitCode"]
    signal = f" ({_SIGNALS[code]})" if code in _SIGNALS else ""
    lines = [line for line in (terminated.get("message") or "").strip().splitlines() if line.strip()]
    last = f"; its last words: {lines[-1][:500]}" if lines else ""
    return f"ended with exit code {code}{signal}{last}"


def _exit_code(code: int) -> ExitCode | None:
    try:
        return ExitCode(code)
    except ValueError:
        return None


def _terminated(status: Manifest) -> Manifest | None:
    for state in ("state", "lastState"):
        if terminated := (status.get(state) or {}).get("terminated"):
            found: Manifest = terminated
            return found
    return None


def container_statuses(pod: Manifest) -> list[Manifest]:
    """Of all containers: a pod whose init container fails never gets so far as to start the others. A sidecar that is
    one ends after them, as it likes."""
    own = list(pod.get("status", {}).get("containerStatuses") or ())
    over = any((status.get("state") or {}).get("terminated") for status in own)
    return own if over else [*_init_statuses(pod), *own]


def _init_statuses(pod: Manifest) -> list[Manifest]:
    return list(pod.get("status", {}).get("initContainerStatuses") or ())


def _name(pod: Manifest) -> str:
    name: str = pod["metadata"]["name"]
    return name
