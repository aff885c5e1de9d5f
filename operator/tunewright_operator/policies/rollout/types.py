"""What a rollout is decided from, and what the decision says."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from tunewright_api.inferenceservice import InferenceServiceStatus
from tunewright_api.rollout import Rollout
from tunewright_api.rollout_status import Analysis, CandidateStatus, HandledRequest, RejectedRevision, RolloutDecision
from tunewright_api.traffic import TrafficProvider
from tunewright_operator.manifests.server import Revision
from tunewright_operator.manifests.traffic.split import Split
from tunewright_operator.observe.revisions import RevisionState
from tunewright_operator.observe.times import format_time


@dataclass(frozen=True)
class RolloutState:
    """What is remembered from turn to turn: exactly what status holds. `stable` is a revision."""

    stable: str | None
    candidate: CandidateStatus | None = None
    analysis: Analysis | None = None
    history: tuple[RolloutDecision, ...] = ()
    rejected: RejectedRevision | None = None
    handled: HandledRequest | None = None


def read_state(status: InferenceServiceStatus, selected: str | None = None) -> RolloutState:
    """The state that a status remembers. `selected` is the revision that the Service leads to: it is the stable one
    where the status names none."""
    return RolloutState(
        stable=status.stable.revision if status.stable else selected,
        candidate=status.candidate,
        analysis=status.analysis,
        history=tuple(status.history),
        rejected=status.rejected,
        handled=status.last_handled_request,
    )


@dataclass(frozen=True)
class World:
    """What the operator sees. `target` is the revision that the spec asks for, None when it cannot be served."""

    now: datetime
    target: Revision | None
    revisions: Mapping[str, RevisionState]
    withdrawn: frozenset[str] = frozenset()  # revisions that must not answer any more
    withdrawn_reasons: Mapping[str, str] = field(default_factory=dict)  # revision -> sentence
    replicas: int = 1
    provider: TrafficProvider = TrafficProvider.NONE
    request: str | None = None  # value of the annotation tunewright.io/request


@dataclass(frozen=True)
class Window:
    """A check that is due: which revisions, at which weight of the candidate, over how many seconds. `stable` is None
    when there is nothing to compare with. The names are for people."""

    revision: str
    stable: str | None
    weight: int
    seconds: int
    name: str = "the candidate"
    stable_name: str = "the stable revision"


@dataclass(frozen=True)
class RolloutPlan:
    """The decision of one turn."""

    state: RolloutState
    split: Split | None  # None: nothing may be selected
    replicas: Mapping[str, int]  # revision -> pods; a revision that is not named keeps its own
    remove: frozenset[str]
    requeue_after: float | None  # seconds until time alone calls for a decision


@dataclass(frozen=True)
class Turn:
    """Everything that a rule of the planner may look at besides the state."""

    rollout: Rollout
    world: World
    check: Analysis | None = None

    @property
    def time(self) -> str:
        """Now, as status has it."""
        return format_time(self.world.now)

    @property
    def target(self) -> Revision | None:
        """The revision to move to, if it may be served."""
        target = self.world.target
        return target if target and target.name not in self.world.withdrawn else None

    def revision(self, name: str | None) -> RevisionState | None:
        """What is seen of a revision."""
        return self.world.revisions.get(name) if name else None

    def ready(self, name: str | None) -> int:
        """Ready pods of a revision that may be served."""
        revision = self.revision(name)
        return revision.ready if revision and revision.name not in self.world.withdrawn else 0
