"""When the next check is due, what it looks at, and what becomes of its verdict."""

from dataclasses import replace
from datetime import datetime, timedelta

from tunewright_api.base import seconds
from tunewright_api.rollout import Strategy
from tunewright_api.rollout_status import CandidateStatus, DecisionType, Phase, Verdict
from tunewright_operator.observe.times import parse_time
from tunewright_operator.policies.rollout.faults import find_fault
from tunewright_operator.policies.rollout.moves import candidate_of, change, move_on, note, undo
from tunewright_operator.policies.rollout.pods import is_complete
from tunewright_operator.policies.rollout.scale import is_loading_time
from tunewright_operator.policies.rollout.sentences import candidate_name, stable_name
from tunewright_operator.policies.rollout.steps import is_judged
from tunewright_operator.policies.rollout.types import RolloutState, Turn, Window

_PHASES = {Phase.MIRRORING, Phase.PROGRESSING, Phase.WAITING}


def next_check(state: RolloutState, turn: Turn) -> datetime | None:
    """When the present window ends; None while there is nothing to look at."""
    candidate = state.candidate
    if candidate is None or candidate.checked_at is None or candidate.phase not in _PHASES:
        return None
    if not is_judged(turn.rollout) or turn.revision(candidate.revision) is None or not turn.world.replicas:
        return None
    shows_nothing = not (candidate.weight or candidate.mirror_weight or turn.rollout.probes)
    if is_held(candidate, turn) and shows_nothing:
        return None
    return parse_time(candidate.checked_at) + timedelta(seconds=seconds(turn.rollout.interval))


def window_of(state: RolloutState, turn: Turn) -> Window | None:
    """The check that is due now."""
    due = next_check(state, turn)
    if due is None or turn.world.now < due:
        return None
    candidate = candidate_of(state)
    # At 100 percent the stable revision gets no requests, so there is nothing to compare with.
    comparable = candidate.weight < 100 and turn.ready(state.stable) > 0
    return Window(
        revision=candidate.revision,
        stable=state.stable if comparable else None,
        weight=candidate.weight,
        seconds=seconds(turn.rollout.interval),
        name=candidate_name(state, turn),
        stable_name=stable_name(state, turn),
    )


def is_held(candidate: CandidateStatus, turn: Turn) -> bool:
    """Whether the candidate stays where it is whatever a good check says: a person holds it, or the version that the
    spec asks for now cannot be served, so that nobody knows whether the candidate is still wanted."""
    return candidate.paused or candidate.phase is Phase.WAITING or turn.target is None


def take_check(state: RolloutState, turn: Turn) -> RolloutState:
    """Count the verdict of a check. While the candidate is held, or has pods that load, only a failed one counts."""
    check, candidate = turn.check, state.candidate
    if check is None or candidate is None or check.revision != candidate.revision or not turn.world.replicas:
        return state
    if candidate.checked_at is None or check.time <= candidate.checked_at:
        return state  # it was taken already
    # The next window begins after the probes of this check: they are requests, too.
    state = replace(change(state, checked_at=turn.time), analysis=check)
    if check.verdict is Verdict.FAIL:
        failed = candidate.failed_checks + 1
        return _hold(change(state, failed_checks=failed), turn, check.reason, f"a check failed: {check.message}")
    complete = is_complete(turn, candidate)
    if is_held(candidate, turn) or (not complete and is_loading_time(state, turn)):
        return state
    if check.verdict is Verdict.INCONCLUSIVE or not complete:
        reason = check.reason if complete else "PodsNotReady"
        inconclusive = candidate.inconclusive_checks + 1
        message = f"a check could not tell: {check.message}"
        return _hold(change(state, inconclusive_checks=inconclusive), turn, reason, message)
    if turn.rollout.strategy is Strategy.BLUE_GREEN:
        state = change(state, step=candidate.step + 1)
    return move_on(state, turn, "Passed", check.message)


def _hold(state: RolloutState, turn: Turn, reason: str, message: str) -> RolloutState:
    """The candidate keeps its weight, unless this check was one too many."""
    fault = find_fault(state, turn)
    if fault:
        return undo(state, turn, DecisionType.ROLLED_BACK, fault.reason, fault.message)
    return note(state, turn, DecisionType.HELD, reason, message)
