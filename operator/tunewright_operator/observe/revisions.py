"""Revisions of an InferenceService, as Deployments and pods show them."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from tunewright_api.names import LABEL_NAME, LABEL_REVISION, LABEL_VERSION
from tunewright_operator.observe.pod_problem import Problem, container_statuses, last_termination, worst_problem

Manifest = dict[str, Any]


@dataclass(frozen=True)
class RevisionState:
    """One Deployment and its pods. `ready` counts pods that answered a real completion."""

    name: str
    version: str
    replicas: int
    ready: int
    settled: bool  # the Deployment's controller has seen the newest template and has no old pods left
    stuck: bool  # no progress within progressDeadlineSeconds
    problem: Problem | None = None
    failure: Problem | None = None
    creating: bool = False  # the containers of a pod are not there yet
    restarts: int = 0  # of the container that was started again most often

    @property
    def complete(self) -> bool:
        """Whether every pod that was asked for is ready."""
        return self.settled and self.ready >= self.replicas


@dataclass(frozen=True)
class Serving:
    """All revisions by name, and the one that the service's own Service selects."""

    revisions: dict[str, RevisionState]
    selected: str | None  # None as well when it leads to all revisions
    exposed: bool = False  # the Service is there, and selects pods of this service

    def leads_to(self, revision: str) -> bool:
        """Whether requests to the Service may reach this revision."""
        return self.exposed and self.selected in {revision, None}


def observe_serving(deployments: Iterable[Manifest], pods: Iterable[Manifest], services: Iterable[Manifest]) -> Serving:
    """Sort the raw children. What is being deleted no longer counts."""
    alive = [pod for pod in pods if not _deleting(pod)]
    states = [
        _revision(
            deployment, [pod for pod in alive if _label(pod, LABEL_REVISION) == _label(deployment, LABEL_REVISION)]
        )
        for deployment in deployments
        if not _deleting(deployment)
    ]
    own = [
        service["spec"].get("selector") or {}
        for service in services
        if not _deleting(service) and service["metadata"]["name"] == _label(service, LABEL_NAME)
        if _selects_own(service)
    ]
    selected = own[0].get(LABEL_REVISION) if own else None
    return Serving({state.name: state for state in states}, selected, exposed=bool(own))


def _selects_own(service: Manifest) -> bool:
    """Whether the selector is still of our making: by the labels of the owner, and maybe a revision."""
    selector = service["spec"].get("selector") or {}
    by_owner = {label: value for label, value in selector.items() if label != LABEL_REVISION}
    return LABEL_NAME in by_owner and by_owner.items() <= service["metadata"]["labels"].items()


def _revision(deployment: Manifest, pods: list[Manifest]) -> RevisionState:
    status, replicas = deployment.get("status") or {}, deployment["spec"].get("replicas", 1)
    conditions = {c["type"]: c for c in status.get("conditions") or ()}
    progressing = conditions.get("Progressing") or {}
    failures = [failure for pod in pods if (failure := last_termination(pod))]
    return RevisionState(
        name=_label(deployment, LABEL_REVISION),
        version=_label(deployment, LABEL_VERSION),
        replicas=replicas,
        ready=status.get("readyReplicas") or 0,
        settled=_settled(deployment, status, replicas),
        stuck=progressing.get("reason") == "ProgressDeadlineExceeded",
        problem=worst_problem(pods) or _not_created(conditions.get("ReplicaFailure")),
        failure=max(failures, key=lambda f: (f.time, f.pod), default=None),
        creating=not all(map(_is_created, pods)),
        restarts=max((s.get("restartCount", 0) for pod in pods for s in container_statuses(pod)), default=0),
    )


def _settled(deployment: Manifest, status: Manifest, replicas: int) -> bool:
    seen = (status.get("observedGeneration") or 0) >= deployment["metadata"].get("generation", 1)
    return seen and status.get("updatedReplicas", 0) >= replicas and (status.get("replicas") or 0) <= replicas


def _not_created(condition: Manifest | None) -> Problem | None:
    """Pods that admission or a quota refuses."""
    if not condition or condition.get("status") != "True":
        return None
    return Problem("", "PodsRefused", f"the pods cannot be created: {condition.get('message', '')}")


def ready_pod(pods: Iterable[Manifest], revision: str) -> Manifest | None:
    """A pod of the revision that is ready and has an address."""
    for pod in pods:
        conditions = {c["type"]: c["status"] for c in pod.get("status", {}).get("conditions") or ()}
        address = pod.get("status", {}).get("podIP")
        ready = conditions.get("Ready") == "True" and address and not _deleting(pod)
        if ready and _label(pod, LABEL_REVISION) == revision:
            return pod
    return None


def _is_created(pod: Manifest) -> bool:
    """Whether its containers are there: volumes are mounted, images pulled, init containers done."""
    waiting = [(status.get("state") or {}).get("waiting") or {} for status in container_statuses(pod)]
    return all(state.get("reason") not in {"ContainerCreating", "PodInitializing"} for state in waiting)


def _label(manifest: Manifest, label: str) -> str:
    value: str = (manifest["metadata"].get("labels") or {}).get(label, "")
    return value


def _deleting(manifest: Manifest) -> bool:
    return bool(manifest["metadata"].get("deletionTimestamp"))
