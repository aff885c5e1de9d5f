"""Status of an InferenceService: does it answer, and is what answers what was asked for?

Two questions, two chains. `Ready` is about the revision that the Service selects: one of its pods answered a real
completion. `Reconciling` and `Stalled` are about the way from there to the spec: ordered checks, first hit wins. So a
service can be Ready and Reconciling (a new revision is loading) or Ready and Stalled (a new revision cannot start).
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from tunewright_api.inferenceservice import InferenceServiceStatus, LastFailure, RevisionStatus
from tunewright_api.names import ConditionType
from tunewright_operator.manifests.server import Revision, service_url
from tunewright_operator.observe.revisions import RevisionState, Serving
from tunewright_operator.policies.hints import explain, hint
from tunewright_operator.policies.rollout import Rollout
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
    refused: str = ""  # what the apiserver said to our children
    refused_reason: str = "ApplyRefused"

    @property
    def wanted(self) -> RevisionState | None:
        """State of the revision that the spec asks for."""
        return self.serving.revisions.get(self.target.name) if self.target else None

    @property
    def selected(self) -> RevisionState | None:
        """State of the revision that the Service selects after this step; None while there is no Service."""
        stays = self.refused or self.serving.selected is None
        name = self.serving.selected if stays else self.rollout.select
        withdrawn = name in self.rollout.remove
        return self.serving.revisions.get(name) if name and not withdrawn else None

    @property
    def answers(self) -> bool:
        """Whether a completion would come back."""
        return self.selected is not None and self.selected.ready > 0


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
    return Gap(now.refused_reason, f"a child cannot be created: {now.refused}")


def _not_created(now: Situation) -> Gap | None:
    if now.wanted is not None or now.target is None:
        return None
    return Gap("Starting", f"creating the pods of {now.target.version}")


def _pod_problem(now: Situation) -> Gap | None:
    wanted = now.wanted
    if wanted is None or wanted.complete or wanted.problem is None:
        return None
    return Gap(wanted.problem.reason, explain(now.namespace, wanted.problem), wanted.problem.final or wanted.stuck)


def _loading(now: Situation) -> Gap | None:
    wanted = now.wanted
    if wanted is None or wanted.ready >= wanted.replicas:
        return None
    progress = f"{wanted.ready} of {wanted.replicas} pods of {wanted.version} answered a completion"
    if wanted.stuck:
        return Gap("ProgressDeadlineExceeded", f"{progress}, and nothing changed for more than an hour", final=True)
    return Gap("Loading", f"{progress}; the others load the model")


def _unsettled(now: Situation) -> Gap | None:
    wanted = now.wanted
    if wanted is None or (wanted.complete and wanted.replicas == now.replicas):
        return None
    return Gap("RollingOut", f"replacing pods of {wanted.version}")


def _no_service(now: Situation) -> Gap | None:
    if now.serving.selected is not None or now.rollout.select is None:
        return None
    return Gap("Starting", f"creating the Service {now.name}")


def _old_revision(now: Situation) -> Gap | None:
    old = sorted(state.version for name, state in now.serving.revisions.items() if name != now.rollout.select)
    if not old:
        return None
    return Gap("RollingOut", f"removing the old revision ({', '.join(old)})")


_CHECKS: tuple[Callable[[Situation], Gap | None], ...] = (
    _refusal,
    _refused,
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
    states = [_accepted(seen), *_ready(seen, gap), *_progress(gap)]
    conditions = declare(tuple(seen.previous.conditions), states, generation=seen.generation, now=now)
    return InferenceServiceStatus(
        observed_generation=seen.generation,
        conditions=list(conditions),
        message=_sentence(seen, gap),
        url=service_url(seen.namespace, seen.name) if seen.answers else None,
        stable=_stable(seen.selected),
        last_failure=_last_failure(seen, gap),
    )


def _accepted(seen: Situation) -> State:
    if seen.refusal and seen.refusal.final:
        return State(ConditionType.ACCEPTED, FALSE, seen.refusal.reason, seen.refusal.message)
    return State(ConditionType.ACCEPTED, TRUE, "Accepted", "the spec can be served")


def _ready(seen: Situation, gap: Gap | None) -> list[State]:
    """No `Ready` at all for a service that was asked to have no pods: it is neither broken nor on its way."""
    if seen.selected is not None and seen.answers:
        return [State(ConditionType.READY, TRUE, "Serving", _answer(seen, seen.selected))]
    if gap is None:
        return []
    return [State(ConditionType.READY, FALSE, gap.reason, gap.message)]


def _progress(gap: Gap | None) -> list[State]:
    if gap is None:
        return []
    kind = ConditionType.STALLED if gap.final else ConditionType.RECONCILING
    return [State(kind, TRUE, gap.reason, gap.message)]


def _sentence(seen: Situation, gap: Gap | None) -> str:
    if gap is not None:
        return gap.message
    if seen.selected is not None and seen.answers:
        return _answer(seen, seen.selected)
    return "scaled to zero: set spec.replicas to serve"


def _answer(seen: Situation, selected: RevisionState) -> str:
    url = service_url(seen.namespace, seen.name)
    return f"{selected.version} answers at {url} as model {seen.name}"


def _stable(selected: RevisionState | None) -> RevisionStatus | None:
    if selected is None:
        return None
    return RevisionStatus(
        version=selected.version,
        revision=selected.name,
        ready_replicas=selected.ready,
        replicas=selected.replicas,
    )


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
