"""A pod of a stage, as far as a job's decisions need it."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tunewright_api.results import StageResult
from tunewright_operator.observe.times import parse_optional

Manifest = dict[str, Any]

INDEX = "batch.kubernetes.io/job-completion-index"


@dataclass(frozen=True)
class PodView:
    """One pod. `index` is its place in the gang, `result` what its container left as termination message."""

    name: str
    index: int
    phase: str
    node: str | None = None
    ip: str | None = None
    running: bool = False
    exit_code: int | None = None
    ended_by: str = ""  # reason of the container runtime: Error, OOMKilled, …
    disrupted_by: str = ""  # reason of the condition DisruptionTarget
    result: StageResult | None = None
    ended: datetime | None = None
    deleted: datetime | None = None
    created: datetime | None = None
    raw: Manifest | None = None

    @property
    def active(self) -> bool:
        """Whether the pod runs or may still run."""
        return self.phase not in {"Succeeded", "Failed"}

    @property
    def failed(self) -> bool:
        """Whether the pod ended badly, or is about to end because somebody deleted it."""
        return (
            self.phase == "Failed" or bool(self.exit_code) or (self.deleted is not None and self.phase != "Succeeded")
        )


def observe_pod(pod: Manifest) -> PodView:
    """View of a raw pod with one container."""
    metadata, status = pod["metadata"], pod.get("status", {})
    container: Manifest = next(iter(status.get("containerStatuses") or ()), {})
    state = container.get("state") or {}
    terminated = state.get("terminated") or {}
    return PodView(
        name=metadata["name"],
        index=_index(metadata),
        phase=status.get("phase", "Pending"),
        node=pod.get("spec", {}).get("nodeName"),
        ip=status.get("podIP"),
        running="running" in state,
        exit_code=terminated.get("exitCode"),
        ended_by=terminated.get("reason") or status.get("reason") or "",
        disrupted_by=_disruption(status),
        result=StageResult.from_message(terminated.get("message") or ""),
        ended=parse_optional(terminated.get("finishedAt")),
        deleted=parse_optional(metadata.get("deletionTimestamp")),
        created=parse_optional(metadata.get("creationTimestamp")),
        raw=pod,
    )


def _index(metadata: Manifest) -> int:
    marks = (metadata.get("annotations") or {}) | (metadata.get("labels") or {})
    return int(marks.get(INDEX, 0))


def _disruption(status: Manifest) -> str:
    for condition in status.get("conditions") or ():
        if condition["type"] == "DisruptionTarget" and condition["status"] == "True":
            return condition.get("reason") or "Disrupted"
    return ""
