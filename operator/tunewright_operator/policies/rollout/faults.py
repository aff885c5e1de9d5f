"""What undoes a rollout: ordered checks, first hit wins."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from tunewright_api.base import seconds
from tunewright_api.rollout_status import Phase, Verdict
from tunewright_operator.observe.pod_problem import CRASH_LOOP_RESTARTS
from tunewright_operator.policies.rollout.history import last_asked
from tunewright_operator.policies.rollout.moves import candidate_of
from tunewright_operator.policies.rollout.pods import is_complete
from tunewright_operator.policies.rollout.scale import awaits_first_pod
from tunewright_operator.policies.rollout.sentences import candidate_name, pods_ready
from tunewright_operator.policies.rollout.steps import is_judged
from tunewright_operator.policies.rollout.types import RolloutState, Turn

APPROVAL_REVOKED = "ApprovalRevoked"


@dataclass(frozen=True)
class Fault:
    """Why the candidate must go."""

    reason: str
    message: str


def find_fault(state: RolloutState, turn: Turn) -> Fault | None:
    """The first reason to undo the rollout, or None."""
    return next((fault for check in _CHECKS if (fault := check(state, turn))), None)


def deadline(state: RolloutState, turn: Turn) -> datetime | None:
    """When the candidate's pods must be ready; None once they are, and while a person or a scale of zero holds it."""
    candidate, asked = candidate_of(state), last_asked(state)
    unchecked = not is_judged(turn.rollout) and candidate.phase is not Phase.WAITING
    loading = candidate.phase is Phase.STARTING or unchecked
    if asked is None or not loading or candidate.paused or not turn.world.replicas or is_complete(turn, candidate):
        return None
    return asked + timedelta(seconds=seconds(turn.rollout.progress_deadline))


def _revoked(state: RolloutState, turn: Turn) -> Fault | None:
    revision = candidate_of(state).revision
    if revision not in turn.world.withdrawn:
        return None
    name = candidate_name(state, turn)
    return Fault(APPROVAL_REVOKED, turn.world.withdrawn_reasons.get(revision) or f"{name} may not be served any more")


def _failed_checks(state: RolloutState, turn: Turn) -> Fault | None:
    candidate, threshold, newest = candidate_of(state), turn.rollout.threshold, state.analysis
    if candidate.failed_checks < threshold:
        return None
    count = _of(candidate.failed_checks, threshold, "failed")
    if newest is None or newest.verdict is not Verdict.FAIL:
        return Fault("FailedChecks", f"{count} is as many as rollout.threshold allows")
    return Fault(newest.reason, newest.message if threshold == 1 else f"{newest.message} ({count})")


def _broken_pod(state: RolloutState, turn: Turn) -> Fault | None:
    """A problem that waiting does not mend."""
    candidate = candidate_of(state)
    revision = turn.revision(candidate.revision)
    if revision is None or revision.problem is None or not revision.problem.final or is_complete(turn, candidate):
        return None
    problem = revision.problem
    return Fault(problem.reason, f"pod {problem.pod}: {problem.message}" if problem.pod else problem.message)


def _crashes(state: RolloutState, turn: Turn) -> Fault | None:
    revision = turn.revision(candidate_of(state).revision)
    if revision is None or revision.restarts < CRASH_LOOP_RESTARTS:
        return None
    last = f"; the last time: {revision.failure.message}" if revision.failure else ""
    return Fault("CrashLoop", f"a pod of {candidate_name(state, turn)} crashed {revision.restarts} times{last}")


def _down(state: RolloutState, turn: Turn) -> Fault | None:
    """No pod answers the candidate's share of the traffic, and the stable revision can. A service that is scaled to
    zero takes the pods away itself, and when it comes back they have to load."""
    candidate = candidate_of(state)
    if not turn.world.replicas or awaits_first_pod(state, turn):
        return None
    if not candidate.weight or turn.ready(candidate.revision) or not turn.ready(state.stable):
        return None
    name = candidate_name(state, turn)
    return Fault("CandidateDown", f"no pod of {name} is ready, and it got {candidate.weight} % of the traffic")


def _too_late(state: RolloutState, turn: Turn) -> Fault | None:
    limit = deadline(state, turn)
    if limit is None or turn.world.now < limit:
        return None
    candidate = candidate_of(state)
    revision = turn.revision(candidate.revision)
    ready = pods_ready(turn.ready(candidate.revision), turn.world.replicas, candidate_name(state, turn))
    because = f": {revision.problem.message}" if revision and revision.problem else ""
    return Fault(
        "ProgressDeadlineExceeded", f"{ready} after progressDeadline ({turn.rollout.progress_deadline}){because}"
    )


def _inconclusive_checks(state: RolloutState, turn: Turn) -> Fault | None:
    candidate, limit, newest = candidate_of(state), turn.rollout.inconclusive_limit, state.analysis
    if candidate.inconclusive_checks < limit:
        return None
    last = f"; the newest: {newest.message}" if newest else ""
    return Fault("Inconclusive", f"{_of(candidate.inconclusive_checks, limit, 'inconclusive')}{last}")


def _of(count: int, limit: int, kind: str) -> str:
    return f"{count} of {limit} {kind} check{'' if limit == 1 else 's'}"


_CHECKS: tuple[Callable[[RolloutState, Turn], Fault | None], ...] = (
    _revoked,
    _failed_checks,
    _broken_pod,
    _crashes,
    _down,
    _too_late,
    _inconclusive_checks,
)
