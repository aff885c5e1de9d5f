"""The chain as a value: what `get NAME -o json` prints, in the words of the API."""

from enum import StrEnum
from typing import Any, TypedDict

Object = dict[str, Any]


class State(StrEnum):
    """How an object is, for people."""

    READY = "Ready"
    PROGRESSING = "Progressing"
    WAITING = "Waiting"  # for a person
    DEGRADED = "Degraded"  # it answers, but not with what was asked for
    FAILED = "Failed"
    IDLE = "Idle"  # asked to do nothing
    MISSING = "Missing"  # referred to, and not there


class Pod(TypedDict):
    """One pod."""

    name: str
    node: str
    ready: bool
    status: str  # Running, Pending, or what keeps it: CrashLoopBackOff, Unschedulable, …
    restarts: int
    created: str
    message: str


class Dataset(TypedDict):
    """What a job trains on; the counts are there once it has been read."""

    uri: str
    format: str
    records: int | None
    train: int | None
    validation: int | None
    truncated: int | None
    digest: str | None


class Job(TypedDict):
    """A FineTuneJob."""

    name: str
    state: State
    stage: str
    message: str
    created: str
    started: str | None
    completed: str | None
    baseModel: str
    method: str
    nodes: int
    progress: Object | None
    checkpointStep: int | None
    restarts: list[Object]
    evaluation: list[Object]
    pods: list[Pod]


class Approval(TypedDict):
    """What a person decided."""

    decision: str | None  # Approved, Rejected; None: nobody has decided
    by: str | None
    reason: str | None


class Version(TypedDict):
    """A ModelVersion."""

    name: str
    state: State
    message: str
    created: str
    modelName: str
    version: str
    kind: str
    digest: str
    uri: str
    sizeBytes: int
    verified: str  # True, False, Unknown
    approval: Approval
    aliases: list[str]
    evaluation: list[Object]
    pods: list[Pod]


class Lineage(TypedDict):
    """How one version came to be; what is not there, or was not made here, is None."""

    dataset: Dataset | None
    job: Job | None
    version: Version | None


class Revision(TypedDict):
    """A revision of a service."""

    role: str  # stable, candidate
    version: str
    revision: str
    weight: int
    readyReplicas: int
    replicas: int
    pods: list[Pod]


class Candidate(Revision):
    """The revision on its way."""

    phase: str
    step: int
    steps: list[int]
    mirrorWeight: int
    paused: bool
    openedGates: list[int]
    failedChecks: int
    inconclusiveChecks: int
    startedAt: str
    checkedAt: str | None


class Rules(TypedDict):
    """What a rollout is held to."""

    strategy: str
    intervalSeconds: int
    threshold: int
    inconclusiveLimit: int
    minRequests: int
    manualGates: list[int]
    autoPromote: bool


class Service(TypedDict):
    """An InferenceService."""

    name: str
    state: State
    ready: str  # True, False; Unknown before it was looked at
    reason: str
    message: str
    created: str
    url: str | None
    wants: str  # the version that the spec asks for
    alias: str | None
    provider: str
    providerMessage: str
    rules: Rules
    stable: Revision | None
    candidate: Candidate | None
    analysis: Object | None
    history: list[Object]
    rejected: Object | None
    lastHandledRequest: Object | None
    performance: Object | None
    lastFailure: Object | None
    otherPods: list[Pod]  # of revisions that are neither


class Focus(TypedDict):
    """What was asked for."""

    kind: str
    name: str


class Chain(TypedDict):
    """All that belongs to one object."""

    namespace: str
    focus: Focus
    state: State
    lineages: list[Lineage]
    services: list[Service]
