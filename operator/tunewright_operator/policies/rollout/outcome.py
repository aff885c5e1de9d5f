"""What follows from a state: the traffic, the revisions to remove, and when time alone calls for the next decision."""

from datetime import timedelta

from tunewright_operator.manifests.traffic.split import Split
from tunewright_operator.policies.rollout.faults import deadline
from tunewright_operator.policies.rollout.history import last_leaving
from tunewright_operator.policies.rollout.scale import awaits_first_pod
from tunewright_operator.policies.rollout.types import RolloutState, Turn
from tunewright_operator.policies.rollout.windows import next_check

# A proxy needs a moment to hear that a revision gets no requests any more.
RETIRE_SECONDS = 5


def plan_split(state: RolloutState, turn: Turn) -> Split | None:
    """The traffic of this state; None while nothing may answer."""
    if state.stable is None:
        return None
    living = turn.world.revisions.keys() - turn.world.withdrawn - plan_removal(state, turn)
    revisions = tuple(sorted(living | _kept(state)))
    candidate = state.candidate
    if candidate is None:
        return Split(state.stable, revisions=revisions)
    weight = 0 if awaits_first_pod(state, turn) else candidate.weight
    return Split(state.stable, candidate.revision, weight, candidate.mirror_weight, revisions)


def plan_removal(state: RolloutState, turn: Turn) -> frozenset[str]:
    """Revisions that go now: the withdrawn ones, and those that left long enough ago."""
    leaving = turn.world.revisions.keys() - _kept(state)
    return frozenset(leaving if _retire_in(state, turn) <= 0 else leaving & turn.world.withdrawn)


def plan_requeue(state: RolloutState, turn: Turn) -> float | None:
    """Seconds until a check, a deadline or a removal is due; None when only a change matters."""
    moments = [next_check(state, turn), deadline(state, turn) if state.candidate else None]
    waits = [(moment - turn.world.now).total_seconds() for moment in moments if moment]
    if turn.world.revisions.keys() - _kept(state) - plan_removal(state, turn):
        waits.append(_retire_in(state, turn))
    return max(0.0, min(waits)) if waits else None


def _kept(state: RolloutState) -> set[str]:
    return {name for name in (state.stable, state.candidate and state.candidate.revision) if name}


def _retire_in(state: RolloutState, turn: Turn) -> float:
    left = last_leaving(state)
    return (left + timedelta(seconds=RETIRE_SECONDS) - turn.world.now).total_seconds() if left else 0.0
