"""The Jobs of a FineTuneJob with their pods, sorted into stages and attempts once; all later code reads these."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import Any

from tunewright_api.names import LABEL_ATTEMPT, LABEL_OWNER_UID, LABEL_STAGE, Stage
from tunewright_api.results import Outcome, StageResult
from tunewright_operator.observe.pods import PodView, observe_pod
from tunewright_operator.observe.times import parse_optional

Manifest = dict[str, Any]


class JobState(Enum):
    """Where a batch Job is."""

    ACTIVE = "Active"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"


@dataclass(frozen=True)
class JobView:
    """One batch Job and its pods in the order of their index.

    `suspended` is what was asked for, `resting` what the Job controller made of it. `started` is the controller's: it
    is set anew when a suspended Job goes on.
    """

    stage: Stage
    attempt: int
    name: str
    state: JobState
    pods: tuple[PodView, ...]
    suspended: bool
    deleting: bool
    image: str
    created: datetime | None
    ended: datetime | None
    message: str
    raw: Manifest
    resting: bool = False
    started: datetime | None = None

    @property
    def uid(self) -> str:
        """Which Job of this name it is."""
        uid: str = self.raw["metadata"]["uid"]
        return uid

    @property
    def result(self) -> StageResult | None:
        """What the stage found: the message of a pod that succeeded (rank 0 for training)."""
        for pod in self.pods:
            if pod.index == 0 and pod.result and pod.result.outcome is Outcome.SUCCEEDED:
                return pod.result
        return None

    @property
    def current_pods(self) -> tuple[PodView, ...]:
        """Pods without those that a suspension has ended; they were deleted before the Job went on."""
        if self.resting:
            return ()
        return tuple(pod for pod in self.pods if not (pod.deleted and _before(pod.created, self.started)))

    @property
    def rank_zero(self) -> PodView | None:
        """The running pod that serves the progress."""
        return next((p for p in self.pods if p.index == 0 and p.running and p.ip and not p.deleted), None)

    @property
    def active_pods(self) -> tuple[PodView, ...]:
        """Pods that hold a node or wait for one."""
        return tuple(pod for pod in self.pods if pod.active)


Jobs = Mapping[tuple[Stage, int], JobView]


def observe_jobs(jobs: Iterable[Manifest], pods: Iterable[Manifest]) -> Jobs:
    """Views by (stage, attempt); a Job without our stage label is not ours."""
    by_owner: dict[str, list[PodView]] = {}
    for pod in pods:
        for reference in pod["metadata"].get("ownerReferences") or ():
            by_owner.setdefault(reference["uid"], []).append(observe_pod(pod))
    views = (_observe_job(job, by_owner.get(job["metadata"]["uid"], ())) for job in jobs)
    return {(view.stage, view.attempt): view for view in views}


@dataclass(frozen=True)
class Orphans:
    """Pods whose Job is gone: `own` by stage and attempt, and whatever of them still `active`, of whichever owner."""

    own: Mapping[tuple[Stage, int], tuple[PodView, ...]] = field(default_factory=dict)
    active: tuple[PodView, ...] = ()


def observe_orphans(pods: Iterable[Manifest], owner_uid: str) -> Orphans:
    """Pods with our stage label, of the object with this uid and of a deleted one of the same name."""
    own: dict[tuple[Stage, int], list[PodView]] = {}
    views = sorted(((observe_pod(pod), pod["metadata"]["labels"]) for pod in pods), key=lambda view: view[0].name)
    for view, labels in views:
        if labels.get(LABEL_OWNER_UID) == owner_uid:
            own.setdefault((Stage(labels[LABEL_STAGE]), int(labels.get(LABEL_ATTEMPT, 1))), []).append(view)
    return Orphans({key: tuple(found) for key, found in own.items()}, tuple(view for view, _ in views if view.active))


def _observe_job(job: Manifest, pods: Iterable[PodView]) -> JobView:
    metadata, status = job["metadata"], job.get("status", {})
    labels = metadata.get("labels") or {}
    state, ended, message = _outcome(status)
    return JobView(
        stage=Stage(labels[LABEL_STAGE]),
        attempt=int(labels.get(LABEL_ATTEMPT, 1)),
        name=metadata["name"],
        state=state,
        pods=tuple(sorted(pods, key=lambda pod: (pod.index, pod.name))),
        suspended=bool(job["spec"].get("suspend")),
        deleting="deletionTimestamp" in metadata,
        image=job["spec"]["template"]["spec"]["containers"][0]["image"],
        created=parse_optional(metadata.get("creationTimestamp")),
        ended=ended,
        message=message,
        raw=job,
        resting=any(c["type"] == "Suspended" and c["status"] == "True" for c in status.get("conditions") or ()),
        started=parse_optional(status.get("startTime")),
    )


def _outcome(status: Manifest) -> tuple[JobState, datetime | None, str]:
    for condition in status.get("conditions") or ():
        if condition["status"] != "True":
            continue
        at = parse_optional(condition.get("lastTransitionTime"))
        if condition["type"] == "Complete":
            return JobState.SUCCEEDED, parse_optional(status.get("completionTime")) or at, ""
        if condition["type"] == "Failed":
            return JobState.FAILED, at, condition.get("message") or condition.get("reason") or ""
    return JobState.ACTIVE, None, ""


def _before(one: datetime | None, other: datetime | None) -> bool:
    return one is not None and other is not None and one < other
