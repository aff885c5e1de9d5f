"""The planner of rollouts: state and world in, decision out. Nothing is remembered but the state.

Ordered rules, each from a state to a state, so that one call decides all there is to decide: planning again from its
result changes nothing.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import reduce

from tunewright_api.rollout import Rollout, Strategy
from tunewright_api.rollout_status import Analysis, CandidateStatus, DecisionType, Phase, Verdict
from tunewright_operator.policies.rollout.fallback import fall_back
from tunewright_operator.policies.rollout.faults import APPROVAL_REVOKED, find_fault
from tunewright_operator.policies.rollout.history import is_stable_stopped
from tunewright_operator.policies.rollout.moves import (
    change,
    drop,
    is_rejected,
    move_on,
    promote,
    start,
    undo,
    waiting_copies,
)
from tunewright_operator.policies.rollout.outcome import plan_removal, plan_requeue, plan_split
from tunewright_operator.policies.rollout.pods import can_take_over, is_broken, is_complete, plan_replicas
from tunewright_operator.policies.rollout.requests import handle_request
from tunewright_operator.policies.rollout.scale import follow_scale, make_room, show_pods
from tunewright_operator.policies.rollout.sentences import candidate_name, stable_name
from tunewright_operator.policies.rollout.steps import is_judged, mirror_weight, wait_reason
from tunewright_operator.policies.rollout.types import RolloutPlan, RolloutState, Turn, Window, World
from tunewright_operator.policies.rollout.windows import take_check, window_of


def due_check(state: RolloutState, rollout: Rollout, world: World) -> Window | None:
    """The check to make before planning; None when none is due, or when something else decides this turn."""
    turn = Turn(rollout, world)
    return window_of(_decide(state, turn), turn)


def plan_rollout(state: RolloutState, rollout: Rollout, world: World, check: Analysis | None = None) -> RolloutPlan:
    """Decide one turn. `check` is the verdict about the window of `due_check`; one that was taken before is ignored."""
    turn = Turn(rollout, world, check)
    state = _decide(state, turn)
    return RolloutPlan(
        state=state,
        split=plan_split(state, turn),
        replicas=plan_replicas(state, turn),
        remove=plan_removal(state, turn),
        requeue_after=plan_requeue(state, turn),
    )


def _decide(state: RolloutState, turn: Turn) -> RolloutState:
    return reduce(lambda current, rule: rule(current, turn), _RULES, state)


def _heed_clock(state: RolloutState, turn: Turn) -> RolloutState:
    """A clock that was put back makes times that are yet to come: they are now, so that nothing waits for them."""
    now, candidate = turn.time, state.candidate
    if any(entry.time > now for entry in state.history):
        history = tuple(entry.model_copy(update={"time": min(entry.time, now)}) for entry in state.history)
        state = replace(state, history=history)
    if candidate is None or max(candidate.started_at, candidate.checked_at or "") <= now:
        return state
    checked_at = candidate.checked_at and min(candidate.checked_at, now)
    return change(state, started_at=min(candidate.started_at, now), checked_at=checked_at)


def _follow_mirror(state: RolloutState, turn: Turn) -> RolloutState:
    """Another share of copied requests, and with it another window. Copies that end before their check has passed end
    with the stage."""
    candidate = state.candidate
    if candidate is None or candidate.phase not in {Phase.WAITING, Phase.MIRRORING}:
        return state
    waits = candidate.phase is Phase.WAITING
    copies = waiting_copies(state, turn) if waits else mirror_weight(turn.rollout) or candidate.mirror_weight
    return state if copies == candidate.mirror_weight else change(state, mirror_weight=copies, checked_at=turn.time)


def _follow_spec(state: RolloutState, turn: Turn) -> RolloutState:
    """What the spec no longer asks for is dropped: a candidate on its way, and the memory of a rejected one."""
    target, rejected, candidate = turn.target, state.rejected, state.candidate
    if target is None:
        return state
    if rejected and (not is_rejected(state, target) or rejected.reason == APPROVAL_REVOKED):
        state = replace(state, rejected=None)
    if candidate is None or candidate.revision == target.name:
        return state
    name, stable = candidate_name(state, turn), stable_name(state, turn)
    if target.name == state.stable:
        return drop(state, turn, "SpecReverted", f"the spec asks for {stable} again; {name} is taken back")
    newer = target.version if target.version != candidate.version else f"{target.version} ({target.name})"
    return drop(state, turn, "SpecChanged", f"the spec asks for {newer} now; {name} is taken back")


def _undo_broken(state: RolloutState, turn: Turn) -> RolloutState:
    fault = find_fault(state, turn) if state.candidate else None
    return undo(state, turn, DecisionType.ROLLED_BACK, fault.reason, fault.message) if fault else state


def _settle_stable(state: RolloutState, turn: Turn) -> RolloutState:
    """Somebody must answer. Where the stable revision may not, or is gone, the candidate does, and without one the
    target, as at the first start: its pods need not be ready, since nobody else's are. Where that may not either, the
    newest of the other living ones does. A rejected revision never."""
    stable, target = state.stable, turn.target
    withdrawn = stable in turn.world.withdrawn
    wanted = target is not None and target.name == stable
    if stable and not withdrawn and (turn.revision(stable) or wanted):
        return state
    if state.candidate:
        name = candidate_name(state, turn)
        why = turn.world.withdrawn_reasons.get(stable or "") or "the stable revision is gone"
        message = f"{why}; {name} answers as soon as one of its pods is ready"
        return promote(state, turn, "StableWithdrawn" if withdrawn else "StableGone", message)
    if target and not is_rejected(state, target):
        return replace(state, stable=target.name)
    fallen = fall_back(state, turn) if stable else None
    return fallen or (replace(state, stable=None) if withdrawn else state)


def _start_candidate(state: RolloutState, turn: Turn) -> RolloutState:
    target = turn.target
    if target is None or state.candidate or state.stable in {None, target.name} or is_rejected(state, target):
        return state
    return start(state, turn, target)


def _pass_stage(state: RolloutState, turn: Turn) -> RolloutState:
    """Go on where no check has to come first."""
    candidate, rollout = state.candidate, turn.rollout
    if candidate is None or candidate.paused or not turn.world.replicas:
        return state
    if turn.target is None and not _replaces_the_stable(candidate, turn):
        return state
    waiting = candidate.phase is Phase.WAITING
    if waiting and wait_reason(rollout, candidate):
        return state
    if not is_complete(turn, candidate) or (waiting and _must_pass_first(candidate, state, turn)):
        return _be_judged(state, candidate) if waiting else state
    if _nothing_to_lose(candidate, state, turn):
        why = f"{stable_name(state, turn)} has no ready pod"
        return promote(state, turn, "StableDown", f"{why}; {candidate_name(state, turn)} gets all of the traffic")
    if waiting:
        return move_on(state, turn, "Released", "nothing holds it any more")
    if candidate.phase is Phase.MIRRORING and not rollout.mirror:
        return move_on(state, turn, "MirrorOff", "requests are no longer copied")
    if candidate.phase is Phase.STARTING or _has_no_requests(candidate, turn) or not is_judged(rollout):
        name = candidate_name(state, turn)
        return move_on(state, turn, "Ready", f"all pods of {name} are ready")
    return state


def _nothing_to_lose(candidate: CandidateStatus, state: RolloutState, turn: Turn) -> bool:
    """The stable revision is broken, so that nobody else answers and there is nothing to compare with. A healthy pod
    that is away for a moment must not end the checks, nor may a gate, a person's promotion or a failed check be jumped
    over."""
    rollout = turn.rollout
    if rollout.strategy is Strategy.RECREATE or turn.ready(state.stable):
        return False
    if candidate.phase is not Phase.STARTING and not can_take_over(turn, candidate):
        return False
    held = not rollout.auto_promote or set(rollout.manual_gates or ()) - set(candidate.opened_gates)
    if held or (state.analysis is not None and state.analysis.verdict is Verdict.FAIL):
        return False
    return is_stable_stopped(state) or is_broken(turn, state.stable)


def _replaces_the_stable(candidate: CandidateStatus, turn: Turn) -> bool:
    """Whether the old pods are gone already: whoever stops here, because nobody knows what the spec asks for, leaves
    nobody who answers."""
    return turn.rollout.strategy is Strategy.RECREATE and candidate.phase is Phase.STARTING


def _must_pass_first(candidate: CandidateStatus, state: RolloutState, turn: Turn) -> bool:
    """Whether a good check has to follow a failed one. Where no request reaches a Canary none could."""
    failed = state.analysis is not None and state.analysis.verdict is Verdict.FAIL
    return failed and not _has_no_requests(candidate, turn)


def _has_no_requests(candidate: CandidateStatus, turn: Turn) -> bool:
    canary = turn.rollout.strategy is Strategy.CANARY
    return canary and not candidate.weight and not candidate.mirror_weight


def _be_judged(state: RolloutState, candidate: CandidateStatus) -> RolloutState:
    """A candidate that nobody holds any more, and that may not go on yet: its checks count again."""
    return change(state, phase=Phase.MIRRORING if candidate.mirror_weight else Phase.PROGRESSING)


_RULES: tuple[Callable[[RolloutState, Turn], RolloutState], ...] = (
    _heed_clock,
    _follow_spec,
    _follow_mirror,
    follow_scale,
    _undo_broken,
    handle_request,
    _settle_stable,
    _start_candidate,
    follow_scale,
    _undo_broken,
    make_room,
    take_check,
    _pass_stage,
    show_pods,
)
