"""A service that is scaled while a candidate is on its way: pods that were asked for have to load first."""

from datetime import timedelta

from tunewright_api.base import seconds
from tunewright_api.rollout_status import DecisionType, Phase
from tunewright_operator.policies.rollout.history import (
    SCALED_TO_ZERO,
    SCALED_UP,
    STABLE_STOPPED,
    is_stable_stopped,
    last_asked,
)
from tunewright_operator.policies.rollout.moves import candidate_of, change, note
from tunewright_operator.policies.rollout.pods import is_broken, is_complete, lacks_room, plan_replicas
from tunewright_operator.policies.rollout.sentences import candidate_name, pods_ready, stable_name
from tunewright_operator.policies.rollout.types import RolloutState, Turn


def follow_scale(state: RolloutState, turn: Turn) -> RolloutState:
    """Note when the service goes to zero or asks for more pods, and begin a window when all of them are ready."""
    candidate = state.candidate
    if candidate is None:
        return state
    name, at_zero = candidate_name(state, turn), _newest_reason(state) == SCALED_TO_ZERO
    if not turn.world.replicas:
        message = f"the service is scaled to 0 pods: {name} waits at {candidate.weight} % until it has some again"
        return state if at_zero else note(state, turn, DecisionType.HELD, SCALED_TO_ZERO, message)
    wanted = plan_replicas(state, turn)[candidate.revision]
    if at_zero or (candidate.phase is not Phase.STARTING and wanted > candidate.replicas):
        ready = pods_ready(turn.ready(candidate.revision), wanted or turn.world.replicas, name)
        since = turn.time if at_zero and candidate.checked_at else candidate.checked_at
        state = change(state, replicas=wanted, checked_at=since)
        return note(state, turn, DecisionType.HELD, SCALED_UP, f"the service asks for more pods: {ready}")
    was_loading = candidate.checked_at is not None and candidate.ready_replicas < candidate.replicas
    if was_loading and is_complete(turn, candidate) and is_loading_time(state, turn):
        return change(state, checked_at=turn.time)
    return state


def make_room(state: RolloutState, turn: Turn) -> RolloutState:
    """A stable revision that is broken keeps no GPU from the candidate that mends it: there is nothing to lose."""
    candidate = state.candidate
    if candidate is None or candidate.phase is not Phase.STARTING or not turn.world.replicas:
        return state
    if is_stable_stopped(state) or not (lacks_room(turn, candidate.revision) and is_broken(turn, state.stable)):
        return state
    name, stable = candidate_name(state, turn), stable_name(state, turn)
    message = f"no node takes the pods of {name}: {stable}, of which 0 pods are ready, stops to make room"
    return note(state, turn, DecisionType.HELD, STABLE_STOPPED, message)


def show_pods(state: RolloutState, turn: Turn) -> RolloutState:
    """The candidate's pods: those that are ready, and those that this decision asks for."""
    candidate = state.candidate
    if candidate is None:
        return state
    revision = turn.revision(candidate.revision)
    ready = revision.ready if revision else 0
    return change(state, ready_replicas=ready, replicas=plan_replicas(state, turn)[candidate.revision])


def is_loading_time(state: RolloutState, turn: Turn) -> bool:
    """Whether pods that are not ready may still be loading: progressDeadline since they were last asked for."""
    asked = last_asked(state)
    return asked is None or turn.world.now < asked + timedelta(seconds=seconds(turn.rollout.progress_deadline))


def awaits_first_pod(state: RolloutState, turn: Turn) -> bool:
    """Whether the service came back from zero and no pod of the candidate has loaded yet: its share of the traffic
    stays with the stable revision so long."""
    candidate = candidate_of(state)
    loading = _newest_reason(state) == SCALED_UP and not candidate.ready_replicas
    return loading and not turn.ready(candidate.revision)


def _newest_reason(state: RolloutState) -> str | None:
    newest = state.history[0] if state.history else None
    return newest.reason if newest and newest.revision == candidate_of(state).revision else None
