"""A pod in one line: whether it is ready, and what keeps it from it, in the words of `kubectl get pods`."""

import json
from collections.abc import Iterable

from tunewright_cli.chain.model import Object, Pod


def describe_pod(pod: Object) -> Pod:
    """The line of one pod."""
    status, message = _status(pod)
    containers = pod.get("status", {}).get("containerStatuses") or ()
    return {
        "name": pod["metadata"]["name"],
        "node": pod["spec"].get("nodeName") or "",
        "ready": is_ready(pod),
        "status": status,
        "restarts": sum(one.get("restartCount", 0) for one in containers),
        "created": pod["metadata"].get("creationTimestamp") or "",
        "message": message,
    }


def describe_pods(pods: Iterable[Object]) -> list[Pod]:
    """The lines of several pods, by name."""
    return sorted((describe_pod(pod) for pod in pods), key=lambda pod: pod["name"])


def is_ready(pod: Object) -> bool:
    """Whether the pod answers, and is not on its way out."""
    if pod["metadata"].get("deletionTimestamp"):
        return False
    conditions = pod.get("status", {}).get("conditions") or ()
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


def owner(pod: Object) -> tuple[str, str]:
    """(kind, name) of the object of ours that the pod works for."""
    labels = pod["metadata"].get("labels") or {}
    return labels.get("tunewright.io/kind", ""), labels.get("tunewright.io/name", "")


def _status(pod: Object) -> tuple[str, str]:
    """(word, message)."""
    status = pod.get("status", {})
    if pod["metadata"].get("deletionTimestamp"):
        return "Terminating", ""
    for condition in status.get("conditions") or ():
        if condition["type"] == "PodScheduled" and condition.get("reason") == "Unschedulable":
            return "Unschedulable", condition.get("message") or ""
    for container in status.get("containerStatuses") or ():
        state = container.get("state") or {}
        if waiting := state.get("waiting"):
            ended = (container.get("lastState") or {}).get("terminated") or {}
            return waiting.get("reason") or "Waiting", _said(ended.get("message") or waiting.get("message"))
        if (ended := state.get("terminated")) and ended.get("exitCode"):
            return ended.get("reason") or "Error", _said(ended.get("message")) or f"exit code {ended['exitCode']}"
    return status.get("reason") or status.get("phase") or "Pending", status.get("message") or ""


def _said(text: str | None) -> str:
    """What a container said at its end: the sentence of our images' result, or the last line of its log."""
    if not text:
        return ""
    try:
        return str(json.loads(text)["message"])
    except (ValueError, KeyError, TypeError):
        lines = [line for line in text.splitlines() if line.strip()]
        return lines[-1].strip()[:300] if lines else ""
