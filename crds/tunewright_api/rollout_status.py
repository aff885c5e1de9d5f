"""What the operator says about the revisions of an InferenceService and the way from one to the next.

The state of a rollout lives here and nowhere else: each decision is written before it is carried out, so an operator
that is killed in between goes on from the decision.
"""

from enum import StrEnum
from typing import Annotated

from pydantic import Field, StringConstraints

from tunewright_api.base import LongText, StatusModel, Text
from tunewright_api.results import ServerPerformance
from tunewright_api.rollout import RolloutMetric, ThresholdRange
from tunewright_api.traffic import TrafficProvider

Time = Annotated[str, StringConstraints(max_length=32)]
Percent = Annotated[int, Field(ge=0, le=100)]


class RevisionStatus(StatusModel):
    """The revision that answers."""

    version: Text = Field(description="Name of the ModelVersion.")
    revision: Text = Field(description="Hash of what makes the revision.")
    weight: Percent = Field(default=100, description="Percent of the traffic.")
    ready_replicas: int = Field(ge=0, description="Pods that answered a real completion.")
    replicas: int = Field(ge=0, description="Pods asked for.")


class Phase(StrEnum):
    """Where a candidate stands."""

    STARTING = "Starting"  # its pods load the model
    MIRRORING = "Mirroring"  # it gets copies of requests
    PROGRESSING = "Progressing"  # it is judged at its weight
    WAITING = "Waiting"  # a gate waits for a person


class CandidateStatus(RevisionStatus):
    """The revision that is on its way, and all that the next decision depends on."""

    phase: Phase = Field(description="Starting, Mirroring, Progressing or Waiting.")
    step: int = Field(default=0, ge=0, description="Steps taken: weights of a Canary, good checks of a BlueGreen.")
    mirror_weight: Percent = Field(default=0, description="Percent of the requests that are copied to it.")
    paused: bool = Field(default=False, description="Whether a person stopped it where it is.")
    opened_gates: list[int] = Field(
        default_factory=list, max_length=32, description="Manual gates that a person has opened."
    )
    failed_checks: int = Field(default=0, ge=0, description="Checks that failed so far.")
    inconclusive_checks: int = Field(default=0, ge=0, description="Checks that could not tell so far.")
    started_at: Time = Field(description="When the rollout began.")
    checked_at: Time | None = Field(
        default=None, description="End of the last window; the next check is one interval later."
    )


class Verdict(StrEnum):
    """Outcome of a check."""

    PASS = "Pass"
    FAIL = "Fail"
    INCONCLUSIVE = "Inconclusive"


class MetricAnalysis(StatusModel):
    """One metric over the window. Latencies are milliseconds, rates are percent."""

    name: RolloutMetric = Field(description="The metric.")
    stable: float | None = Field(default=None, description="Value of the stable revision; absent without requests.")
    candidate: float | None = Field(default=None, description="Value of the candidate; absent without requests.")
    threshold_range: ThresholdRange | None = Field(
        default=None, description="Limits that applied, those from the stable's value included."
    )
    verdict: Verdict = Field(description="Pass, Fail or Inconclusive.")
    message: Text = Field(default="", description="The verdict as a sentence.")


class ProbeAnalysis(StatusModel):
    """The probes of one check."""

    passed: int = Field(ge=0, description="Right answers.")
    total: int = Field(ge=0, description="Questions.")
    verdict: Verdict = Field(description="Pass, Fail or Inconclusive.")
    message: LongText = Field(default="", description="The first wrong answer.")


class Analysis(StatusModel):
    """The newest check."""

    time: Time = Field(description="End of the window.")
    revision: Text = Field(description="The candidate that was judged.")
    weight: Percent = Field(description="Its weight during the window.")
    window_seconds: int = Field(ge=0, description="Length of the window.")
    requests: int | None = Field(default=None, description="Requests of the candidate in the window.")
    stable_requests: int | None = Field(default=None, description="Requests of the stable revision in the window.")
    verdict: Verdict = Field(description="Pass, Fail or Inconclusive.")
    reason: Text = Field(description="What decided, as one CamelCase word.")
    message: LongText = Field(default="", description="What decided, as a sentence.")
    metrics: list[MetricAnalysis] = Field(default_factory=list, max_length=16, description="The metrics.")
    probes: ProbeAnalysis | None = Field(default=None, description="The probes.")


class DecisionType(StrEnum):
    """What was decided."""

    STARTED = "Started"
    ADVANCED = "Advanced"
    HELD = "Held"
    WAITING = "Waiting"
    PROMOTED = "Promoted"
    ROLLED_BACK = "RolledBack"
    ABORTED = "Aborted"
    REPLACED = "Replaced"
    PAUSED = "Paused"
    RESUMED = "Resumed"
    RETRIED = "Retried"


class RolloutDecision(StatusModel):
    """One entry of the history. Equal holds in a row are one entry."""

    time: Time = Field(description="When it was decided; the newest of equal ones.")
    decision: DecisionType = Field(description="What was decided.")
    revision: Text = Field(description="The candidate.")
    version: Text = Field(description="Its ModelVersion.")
    weight: Percent = Field(description="The candidate's weight from then on.")
    reason: Text = Field(description="Why, as one CamelCase word.")
    message: LongText = Field(default="", description="Why, as a sentence.")
    count: int = Field(default=1, ge=1, description="Equal decisions in a row.")


class RejectedRevision(StatusModel):
    """The revision that was rolled back: it is not tried again until the spec changes or somebody retries."""

    revision: Text = Field(description="Hash of what makes the revision.")
    version: Text = Field(description="Its ModelVersion.")
    fingerprint: Text | None = Field(
        default=None, description="Hash of what the spec asked for: another server image does not change it."
    )
    reason: Text = Field(description="Why, as one CamelCase word.")
    message: LongText = Field(default="", description="Why, and what to do.")
    time: Time = Field(description="When.")


class RequestOutcome(StrEnum):
    """What became of a request."""

    DONE = "Done"
    REFUSED = "Refused"


class HandledRequest(StatusModel):
    """Echo of the annotation tunewright.io/request."""

    request: Text = Field(description="Its value.")
    outcome: RequestOutcome = Field(description="Done or Refused.")
    message: LongText = Field(default="", description="What was done, or why not.")
    time: Time = Field(description="When.")


class Performance(ServerPerformance):
    """Speed of one pod with a single request, measured once when it had loaded the model."""

    revision: Text = Field(description="The revision that was measured.")


class TrafficStatus(StatusModel):
    """Who splits the traffic."""

    provider: TrafficProvider = Field(description="Istio, GatewayAPI or None.")
    message: LongText = Field(default="", description="What this provider cannot do.")
