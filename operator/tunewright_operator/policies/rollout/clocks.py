"""What runs from a decision runs from when it was carried out: an operator may end, and stay away, in between."""

from collections.abc import Set
from dataclasses import replace
from datetime import datetime, timedelta

from tunewright_operator.observe.times import format_time, parse_time
from tunewright_operator.policies.rollout.history import last_leaving
from tunewright_operator.policies.rollout.types import RolloutState

# A decision is carried out in the turn that takes it; what we see of that comes a moment later.
_CARRY_OUT = timedelta(seconds=2)


def is_overdue(state: RolloutState, now: datetime) -> bool:
    """Whether the newest decision should long have been carried out."""
    times = [parse_time(entry.time) for entry in state.history[:1]]
    if state.candidate and state.candidate.checked_at:
        times.append(parse_time(state.candidate.checked_at))
    return bool(times) and now - max(times) > _CARRY_OUT


def restart_clocks(state: RolloutState, now: datetime, living: Set[str]) -> RolloutState:
    """The window of the candidate begins now, and so does the time after which a revision that was left goes, if one of
    the living revisions was. What has been carried out to its end keeps its time."""
    candidate, time = state.candidate, format_time(now)
    if candidate and candidate.checked_at:
        state = replace(state, candidate=candidate.model_copy(update={"checked_at": time}))
    if living <= {state.stable, candidate and candidate.revision}:
        return state
    left = last_leaving(state)
    history = tuple(
        entry.model_copy(update={"time": time}) if left and parse_time(entry.time) == left else entry
        for entry in state.history
    )
    return replace(state, history=history)
