"""The last ten decisions, and when one of them last took a revision out of service or asked for pods."""

from dataclasses import replace
from datetime import datetime

from tunewright_api.rollout_status import DecisionType, Phase, RolloutDecision
from tunewright_operator.observe.times import parse_time
from tunewright_operator.policies.rollout.types import RolloutState

LENGTH = 10
SCALED_TO_ZERO, SCALED_UP = "ScaledToZero", "ScaledUp"
STABLE_STOPPED = "StableStopped"
_LEAVING = {DecisionType.PROMOTED, DecisionType.ROLLED_BACK, DecisionType.ABORTED, DecisionType.REPLACED}
_ASKING = {DecisionType.STARTED, DecisionType.ADVANCED, DecisionType.RESUMED}


def record(state: RolloutState, entry: RolloutDecision) -> RolloutState:
    """Put the decision in front. A hold that equals the newest entry, but for its numbers, takes its place."""
    newest, *older = state.history or (None,)
    if newest and entry.decision is DecisionType.HELD and _kind(newest) == _kind(entry):
        entry = entry.model_copy(update={"count": newest.count + 1})
        return replace(state, history=(entry, *older))
    return replace(state, history=(entry, *state.history)[:LENGTH])


def _kind(entry: RolloutDecision) -> tuple[object, ...]:
    return entry.decision, entry.revision, entry.weight, entry.reason


def last_leaving(state: RolloutState) -> datetime | None:
    """When a revision last became neither stable nor candidate; None when the history knows of none."""
    return next((parse_time(entry.time) for entry in state.history if entry.decision in _LEAVING), None)


def last_asked(state: RolloutState) -> datetime | None:
    """When a decision last asked for pods of the candidate, or let it go on with those that it has. Where the history
    has forgotten it that was before all that it knows of. None without a candidate."""
    if state.candidate is None:
        return None
    own = [entry for entry in state.history if entry.revision == state.candidate.revision]
    asking = [entry.time for entry in own if entry.decision in _ASKING or entry.reason == SCALED_UP]
    oldest = [entry.time for entry in own[-1:]] if len(state.history) == LENGTH else []
    return parse_time(next(iter([*asking, *oldest]), state.candidate.started_at))


def is_stable_stopped(state: RolloutState) -> bool:
    """Whether the broken pods of the stable revision were stopped for this candidate, which still starts."""
    candidate = state.candidate
    if candidate is None or candidate.phase is not Phase.STARTING:
        return False
    since = parse_time(candidate.started_at)
    own = (entry for entry in state.history if entry.revision == candidate.revision and parse_time(entry.time) >= since)
    return any(entry.reason == STABLE_STOPPED for entry in own)
