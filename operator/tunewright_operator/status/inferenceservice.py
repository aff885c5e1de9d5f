"""Status of an InferenceService: does it answer, and is what answers what was asked for?

Two questions, two chains. `Ready` is about the stable revision: one of its pods answered a real completion.
`Reconciling` and `Stalled` are about the way from there to the spec: ordered checks, first hit wins. So a service can
be Ready and Reconciling (a candidate is judged) or Ready and Stalled (it was rolled back, which is also `Degraded`).
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from tunewright_api.inferenceservice import InferenceServiceStatus, LastFailure
from tunewright_api.names import ConditionType
from tunewright_api.rollout import Rollout
from tunewright_api.rollout_status import CandidateStatus, Performance, Phase, RevisionStatus, TrafficStatus
from tunewright_operator.manifests.server import Revision, service_url
from tunewright_operator.observe.revisions import RevisionState, Serving
from tunewright_operator.policies.hints import explain, hint
from tunewright_operator.policies.rollout import RolloutPlan, RolloutState, describe, is_rejected
from tunewright_operator.policies.servable import Refusal
from tunewright_operator.status.conditions import FALSE, TRUE
from tunewright_operator.status.declare import State, declare


@dataclass(frozen=True)
class Situation:
    """All that the status is computed from."""

    namespace: str
    name: str
    generation: int
    previous: InferenceServiceStatus
    refusal: Refusal | None
    target: Revision | None
    replicas: int
    serving: Serving
    rollout: Rollout
    decided: RolloutPlan
    withdrawn: frozenset[str] = field(default_factory=frozenset)
    traffic: TrafficStatus | None = None
    performance: Performance | None = None
    route_refusal: str | None = None  # what a Gateway says against our HTTPRoute
    leads: bool = False  # this turn writes the Service, which leads to the stable revision then
    refused: str = ""  # what the apiserver said to our children
    refused_reason: str = "ApplyRefused"
    unmoved: bool = False  # because of that some requests still go where they went before

    @property
    def state(self) -> RolloutState:
        """What the planner remembers."""
        return self.decided.state

    @property
    def stable(self) -> RevisionState | None:
        """State of the stable revision; None before its pods exist, and once it was withdrawn."""
        name = self.state.stable
        return self.serving.revisions.get(name) if name and name not in self.withdrawn else None

    @property
    def candidate(self) -> RevisionState | None:
        """State of the candidate."""
        candidate = self.state.candidate
        return self.serving.revisions.get(candidate.revision) if candidate else None

    @property
    def answers(self) -> bool:
        """Whether a completion would come back: a pod is ready, and the Service leads to it once this turn is over."""
        if self.stable is None or not self.stable.ready or not self.serving.exposed:
            return False
        return self.serving.leads_to(self.stable.name) or (self.leads and not self.refused)


@dataclass(frozen=True)
class Gap:
    """What lies between the state and the spec. `final`: waiting does not help."""

    reason: str
    message: str
    final: bool = False


# --- the way to the spec: ordered checks, first hit wins --------------------------------------


def _refusal(now: Situation) -> Gap | None:
    if now.refusal is None:
        return None
    return Gap(now.refusal.reason, now.refusal.message, now.refusal.final)


def _refused(now: Situation) -> Gap | None:
    if not now.refused:
        return None
    still = "; the traffic is still as before" if now.unmoved else ""
    return Gap(now.refused_reason, f"a child cannot be created: {now.refused}{still}")


def _rolled_back(now: Situation) -> Gap | None:
    rejected = now.state.rejected
    if rejected is None or now.target is None or not is_rejected(now.state, now.target):
        return None
    serving = f"; {now.stable.version} serves" if now.stable and now.stable.ready else ""
    message = (
        f"{rejected.version} was rolled back ({rejected.reason}): {rejected.message}{serving}. Change the spec, or try "
        f"it again with `tunewright retry {now.name} -n {now.namespace}`"
    )
    return Gap("RolledBack", message, final=True)


def _stable_gone(now: Situation) -> Gap | None:
    """After a rollback only the spec brings the stable revision back: its pods are built from nothing else."""
    stable, rejected = _gone(now), now.state.rejected
    if stable is None or rejected is None or now.target is None or not is_rejected(now.state, now.target):
        return None
    message = (
        f"the Deployment of {stable.version} is gone, and {rejected.version} was rolled back ({rejected.reason}): "
        f"nothing answers. Set spec.model to {stable.version}"
    )
    return Gap("StableGone", message, final=True)


def _route_refused(now: Situation) -> Gap | None:
    return Gap("RouteNotAccepted", now.route_refusal) if now.route_refusal else None


def _candidate_starting(now: Situation) -> Gap | None:
    """The candidate's pods are not there yet; its problem is the planner's to judge, and ours to show."""
    candidate, state = now.state.candidate, now.candidate
    if candidate is None or candidate.phase is not Phase.STARTING:
        return None
    if state is None:
        return Gap("Starting", f"creating the pods of {candidate.version}")
    if state.problem and not state.complete:
        return Gap(state.problem.reason, explain(now.namespace, state.problem))
    return Gap("Starting", describe(now.state, now.rollout))


def _candidate(now: Situation) -> Gap | None:
    candidate = now.state.candidate
    if candidate is None:
        return None
    reason = "Paused" if candidate.paused else candidate.phase.value
    return Gap(reason, describe(now.state, now.rollout))


def _not_created(now: Situation) -> Gap | None:
    if now.stable is not None or now.target is None:
        return None
    return Gap("Starting", f"creating the pods of {now.target.version}")


def _pod_problem(now: Situation) -> Gap | None:
    stable = now.stable
    if stable is None or stable.complete or stable.problem is None:
        return None
    return Gap(stable.problem.reason, explain(now.namespace, stable.problem), stable.problem.final or stable.stuck)


def _loading(now: Situation) -> Gap | None:
    stable = now.stable
    if stable is None or stable.ready >= stable.replicas:
        return None
    progress = f"{stable.ready} of {stable.replicas} pods of {stable.version} answered a completion"
    if stable.stuck:
        return Gap("ProgressDeadlineExceeded", f"{progress}, and nothing changed for more than an hour", final=True)
    others = "the containers of others are being created" if stable.creating else "the others load the model"
    return Gap("Loading", f"{progress}; {others}")


def _unsettled(now: Situation) -> Gap | None:
    stable = now.stable
    if stable is None or (stable.complete and stable.replicas == now.replicas):
        return None
    return Gap("RollingOut", f"replacing pods of {stable.version}")


def _no_service(now: Situation) -> Gap | None:
    if now.serving.exposed or now.decided.split is None or now.refusal:
        return None
    return Gap("Starting", f"creating the Service {now.name}")


def _old_revision(now: Situation) -> Gap | None:
    old = sorted(state.version for name, state in now.serving.revisions.items() if name != now.state.stable)
    if not old:
        return None
    return Gap("RollingOut", f"removing the old revision ({', '.join(old)})")


_CHECKS: tuple[Callable[[Situation], Gap | None], ...] = (
    _refusal,
    _refused,
    _stable_gone,
    _rolled_back,
    _route_refused,
    _candidate_starting,
    _candidate,
    _not_created,
    _pod_problem,
    _loading,
    _unsettled,
    _no_service,
    _old_revision,
)


def find_gap(now: Situation) -> Gap | None:
    """The first thing between the state and the spec, or None when the spec is served."""
    return next((gap for check in _CHECKS if (gap := check(now))), None)


# --- all of it --------------------------------------------------------------------------------


def compute_status(seen: Situation, now: datetime) -> InferenceServiceStatus:
    """The whole status."""
    gap = find_gap(seen)
    states = [_accepted(seen), *_ready(seen, gap), *_degraded(gap), *_progress(gap)]
    conditions = declare(tuple(seen.previous.conditions), states, generation=seen.generation, now=now)
    return InferenceServiceStatus(
        observed_generation=seen.generation,
        conditions=list(conditions),
        message=_sentence(seen, gap),
        url=service_url(seen.namespace, seen.name) if seen.answers else None,
        stable=_stable_status(seen),
        candidate=_candidate_status(seen),
        analysis=seen.state.analysis,
        history=list(seen.state.history),
        rejected=seen.state.rejected,
        last_handled_request=seen.state.handled,
        performance=seen.performance,
        traffic=seen.traffic,
        last_failure=_last_failure(seen, gap),
    )


def _accepted(seen: Situation) -> State:
    if seen.refusal and seen.refusal.final:
        return State(ConditionType.ACCEPTED, FALSE, seen.refusal.reason, seen.refusal.message)
    return State(ConditionType.ACCEPTED, TRUE, "Accepted", "the spec can be served")


def _ready(seen: Situation, gap: Gap | None) -> list[State]:
    """No `Ready` at all for a service that was asked to have no pods: it is neither broken nor on its way."""
    if seen.stable is not None and seen.answers:
        return [State(ConditionType.READY, TRUE, "Serving", _answer(seen, seen.stable))]
    silence = _find_silence(seen) or gap
    if silence is None:
        return []
    return [State(ConditionType.READY, FALSE, silence.reason, silence.message)]


def _find_silence(seen: Situation) -> Gap | None:
    """Why the stable revision does not answer, whatever else lies between the state and the spec."""
    if seen.stable is None:
        return None
    return next((gap for check in (_refused, _pod_problem, _loading, _no_service) if (gap := check(seen))), None)


def _degraded(gap: Gap | None) -> list[State]:
    """It answers, and what was asked for has shown that it must not."""
    if gap is None or gap.reason != "RolledBack":
        return []
    return [State(ConditionType.DEGRADED, TRUE, gap.reason, gap.message)]


def _progress(gap: Gap | None) -> list[State]:
    if gap is None:
        return []
    kind = ConditionType.STALLED if gap.final else ConditionType.RECONCILING
    return [State(kind, TRUE, gap.reason, gap.message)]


def _sentence(seen: Situation, gap: Gap | None) -> str:
    if gap is not None:
        return gap.message
    if seen.stable is not None and seen.answers:
        return _answer(seen, seen.stable)
    return "scaled to zero: set spec.replicas to serve"


def _answer(seen: Situation, stable: RevisionState) -> str:
    url = service_url(seen.namespace, seen.name)
    return f"{stable.version} answers at {url} as model {seen.name}"


def _stable_status(seen: Situation) -> RevisionStatus | None:
    stable, split = seen.stable, seen.decided.split
    if stable is None:
        return _gone(seen)
    return RevisionStatus(
        version=stable.version,
        revision=stable.name,
        weight=100 - split.weight if split else 100,
        ready_replicas=stable.ready,
        replicas=stable.replicas,
    )


def _gone(seen: Situation) -> RevisionStatus | None:
    """The stable revision, where somebody removed its Deployment."""
    before = seen.previous.stable
    if before is None or before.revision != seen.state.stable or before.revision in seen.serving.revisions:
        return None
    return before.model_copy(update={"ready_replicas": 0, "replicas": 0})


def _candidate_status(seen: Situation) -> CandidateStatus | None:
    candidate, state = seen.state.candidate, seen.candidate
    if candidate is None or state is None:
        return candidate
    return candidate.model_copy(update={"ready_replicas": state.ready, "replicas": state.replicas})


def _last_failure(seen: Situation, gap: Gap | None) -> LastFailure | None:
    """The newest failure; one whose pod is gone is remembered until all is well."""
    failures = [state.failure for state in seen.serving.revisions.values() if state.failure]
    if not failures:
        return seen.previous.last_failure if gap is not None else None
    newest = max(failures, key=lambda f: (f.time, f.pod))
    advice = hint(seen.namespace, newest)
    return LastFailure(
        pod=newest.pod,
        reason=newest.reason,
        exit_code=newest.exit_code,
        hint=f"{newest.message}. What to do: {advice}" if advice else newest.message,
    )
