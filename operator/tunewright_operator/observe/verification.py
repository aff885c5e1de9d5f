"""The verification of a ModelVersion, as its children show it."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from tunewright_api.results import StageResult
from tunewright_operator.observe.pod_problem import Problem, worst_problem
from tunewright_operator.observe.times import parse_optional

Manifest = dict[str, Any]


class JobState(StrEnum):
    """Where a batch Job is."""

    ABSENT = "Absent"
    RUNNING = "Running"
    COMPLETE = "Complete"
    FAILED = "Failed"


@dataclass(frozen=True)
class Verification:
    """What is known about the artifact besides the object's own status."""

    claim_exists: bool
    job: JobState
    problem: Problem | None = None
    job_message: str = ""
    digest: str | None = None  # what the files have, as a pod that succeeded found
    ended: datetime | None = None  # when the Job succeeded
    refused: str = ""  # why the apiserver did not take the Job
    refused_reason: str = "VerificationRefused"


def observe_verification(jobs: Iterable[Manifest], pods: Iterable[Manifest], *, claim_exists: bool) -> Verification:
    """Sort the raw children."""
    pods = tuple(pods)
    present = [pod for pod in pods if not pod["metadata"].get("deletionTimestamp")]
    problem = worst_problem(present)
    alive = [job for job in jobs if not job["metadata"].get("deletionTimestamp")]
    if not alive:
        return Verification(claim_exists, JobState.ABSENT, problem)
    for condition in alive[0].get("status", {}).get("conditions") or ():
        if condition["status"] != "True":
            continue
        if condition["type"] in ("Complete", "SuccessCriteriaMet"):
            ended = parse_optional(condition.get("lastTransitionTime"))
            return Verification(claim_exists, JobState.COMPLETE, digest=_digest(pods), ended=ended)
        if condition["type"] in ("Failed", "FailureTarget"):
            if present and problem is None:
                break  # Job and pods come by separate watches: the pod's result is on its way
            return Verification(claim_exists, JobState.FAILED, problem, condition.get("message") or "")
    return Verification(claim_exists, JobState.RUNNING, problem)


def _digest(pods: Iterable[Manifest]) -> str | None:
    """The digest in the result of a pod that succeeded."""
    for status in (status for pod in pods for status in pod.get("status", {}).get("containerStatuses") or ()):
        ended = status.get("state", {}).get("terminated") or {}
        result = StageResult.from_message(ended.get("message") or "") if ended.get("exitCode") == 0 else None
        if result and result.verify:
            return result.verify.digest
    return None
