"""Pods of the two revisions: how many each shall have, and whether the candidate has all of its own."""

from collections.abc import Mapping

from tunewright_api.rollout import Strategy
from tunewright_api.rollout_status import CandidateStatus, Phase
from tunewright_operator.policies.rollout.history import is_stable_stopped
from tunewright_operator.policies.rollout.steps import candidate_pods
from tunewright_operator.policies.rollout.types import RolloutState, Turn

UNSCHEDULABLE = "Unschedulable"


def is_complete(turn: Turn, candidate: CandidateStatus) -> bool:
    """Whether every pod that the candidate needs at its weight is ready."""
    return _is_ready(turn, candidate, _needed(turn, candidate))


def can_take_over(turn: Turn, candidate: CandidateStatus) -> bool:
    """Whether the candidate has the pods to answer everything."""
    return _is_ready(turn, candidate, turn.world.replicas)


def _is_ready(turn: Turn, candidate: CandidateStatus, wanted: int) -> bool:
    revision = turn.revision(candidate.revision)
    return revision is not None and revision.complete and revision.ready >= wanted


def _needed(turn: Turn, candidate: CandidateStatus) -> int:
    return candidate_pods(turn.rollout, turn.world.provider, turn.world.replicas, candidate.weight)


def plan_replicas(state: RolloutState, turn: Turn) -> Mapping[str, int]:
    """Pods of the stable revision and of the candidate."""
    replicas = {state.stable: turn.world.replicas} if state.stable else {}
    candidate = state.candidate
    if candidate is None:
        return replicas
    replicas[candidate.revision] = _needed(turn, candidate)
    if state.stable and _takes_the_old_pods(turn, candidate):
        replicas[state.stable] = 0
        if not (_has_pods(turn, candidate.revision) or _is_gone(turn, state.stable)):
            replicas[candidate.revision] = 0
    if state.stable and is_stable_stopped(state):
        replicas[state.stable] = 0
    return replicas


def is_broken(turn: Turn, name: str | None) -> bool:
    """Whether a revision answers nothing because something is wrong with it. Pods that load again after they were
    moved, or wait for room on a node, are not broken."""
    revision = turn.revision(name)
    if revision is None or turn.ready(name):
        return False
    if lacks_room(turn, revision.name):
        return False
    return revision.stuck or revision.problem is not None or revision.failure is not None


def lacks_room(turn: Turn, name: str) -> bool:
    """Whether no node takes a pod of the revision."""
    revision = turn.revision(name)
    return revision is not None and revision.problem is not None and revision.problem.reason == UNSCHEDULABLE


def _takes_the_old_pods(turn: Turn, candidate: CandidateStatus) -> bool:
    return turn.rollout.strategy is Strategy.RECREATE and candidate.phase is Phase.STARTING


def _has_pods(turn: Turn, name: str) -> bool:
    """Once the candidate's pods were asked for they stay, whatever becomes of the old ones."""
    revision = turn.revision(name)
    return revision is not None and revision.replicas > 0


def _is_gone(turn: Turn, name: str) -> bool:
    revision = turn.revision(name)
    return revision is None or (revision.settled and not revision.replicas and not revision.ready)
