"""Requests of people: VERB@REVISION[/ID] in one annotation, each handled once."""

import re
from collections.abc import Callable
from dataclasses import replace

from tunewright_api.rollout import Strategy
from tunewright_api.rollout_status import DecisionType, HandledRequest, Phase, RequestOutcome, Verdict
from tunewright_operator.policies.rollout.moves import candidate_of, change, forgive, note, promote, undo
from tunewright_operator.policies.rollout.pods import can_take_over, is_complete
from tunewright_operator.policies.rollout.sentences import candidate_name, pods_ready, share
from tunewright_operator.policies.rollout.steps import (
    AUTO_PROMOTE_OFF,
    MANUAL_GATE,
    closed_gates,
    wait_reason,
    weights_of,
)
from tunewright_operator.policies.rollout.types import RolloutState, Turn

REQUESTED = "Requested"
ABORTED = "Aborted"
_LONGEST = 1024
_FORM = re.compile(r"(?P<verb>[^@/]+)@(?P<revision>[^@/]+)(/.*)?", re.DOTALL)


class _RefusedError(Exception):
    """The request cannot be met; the message says why."""


Answer = tuple[RolloutState, str]


def handle_request(state: RolloutState, turn: Turn) -> RolloutState:
    """Do what a person asked for, or say why not. A request that was handled already changes nothing."""
    request = (turn.world.request or "")[:_LONGEST]
    if not request or (state.handled and state.handled.request == request):
        return state
    try:
        state, message = _answer(request, state, turn)
        outcome = RequestOutcome.DONE
    except _RefusedError as refused:
        outcome, message = RequestOutcome.REFUSED, str(refused)
    handled = HandledRequest(request=request, outcome=outcome, message=message, time=turn.time)
    return replace(state, handled=handled)


def _answer(request: str, state: RolloutState, turn: Turn) -> Answer:
    form = _FORM.fullmatch(request)
    if form is None or form["verb"] not in _VERBS:
        raise _RefusedError(
            f"{request[:100]!r} is no request: write VERB@REVISION or VERB@REVISION/ID, such as promote@1a2b3c4d, "
            f"with one of the verbs {', '.join(_VERBS)}"
        )
    verb, revision = form["verb"], form["revision"]
    if verb == "retry":
        _expect_rejected(revision, state)
    else:
        _expect_candidate(verb, revision, state, turn)
    return _VERBS[verb](state, turn)


def _expect_rejected(revision: str, state: RolloutState) -> None:
    rejected = state.rejected
    if rejected is None or rejected.revision != revision:
        known = f", {rejected.revision} ({rejected.version}) was" if rejected else ""
        raise _RefusedError(f"{revision} was not rolled back{known}")


def _expect_candidate(verb: str, revision: str, state: RolloutState, turn: Turn) -> None:
    """Whoever names another revision than the one on its way has seen something else."""
    if state.candidate is None:
        already = f"; {revision} is the stable revision already" if revision == state.stable else ""
        raise _RefusedError(f"there is nothing to {verb}: no revision is on its way{already}")
    if state.candidate.revision != revision:
        raise _RefusedError(
            f"{revision} is not on its way, {candidate_name(state, turn)} is: write {verb}@{state.candidate.revision} "
            "if you mean that"
        )


def _promote(state: RolloutState, turn: Turn) -> Answer:
    candidate, name = candidate_of(state), candidate_name(state, turn)
    if not can_take_over(turn, candidate):
        if is_complete(turn, candidate):
            raise _RefusedError(_more_pods_later(state, turn))
        ready = pods_ready(turn.ready(candidate.revision), turn.world.replicas, name)
        raise _RefusedError(f"{ready}: promote it once all are, or abort it")
    if state.analysis and state.analysis.verdict is Verdict.FAIL:
        raise _RefusedError(f"the newest check of {name} failed ({state.analysis.message}): wait for a good one")
    return promote(
        state, turn, REQUESTED, f"a person promoted {name}, which gets all of the traffic"
    ), f"{name} was promoted"


def _more_pods_later(state: RolloutState, turn: Turn) -> str:
    """Why a candidate that has all the pods of its weight cannot take over, and what can be done."""
    candidate, name = candidate_of(state), candidate_name(state, turn)
    at_gate = candidate.phase is Phase.WAITING and wait_reason(turn.rollout, candidate) == MANUAL_GATE
    advice = f"open the gate with resume@{candidate.revision}" if at_gate else "promote it there, or abort it"
    pods = f"{turn.ready(candidate.revision)} of {turn.world.replicas} pods"
    return (
        f"{name} has {pods} at {candidate.weight} %, and without a traffic provider it gets the others at "
        f"its last step ({weights_of(turn.rollout)[-1]} %): {advice}"
    )


def _abort(state: RolloutState, turn: Turn) -> Answer:
    name = candidate_name(state, turn)
    message = f"a person aborted {name}, which had {candidate_of(state).weight} % of the traffic"
    return undo(state, turn, DecisionType.ABORTED, ABORTED, message), f"{name} was aborted"


def _pause(state: RolloutState, turn: Turn) -> Answer:
    candidate, name = candidate_of(state), candidate_name(state, turn)
    if candidate.paused:
        raise _RefusedError(f"{name} is paused already")
    if turn.rollout.strategy is Strategy.RECREATE:
        raise _RefusedError(
            f"strategy Recreate cannot be paused: nothing answers until {name} is ready; abort it instead"
        )
    message = f"{name} is paused: it {share(candidate)} until somebody runs tunewright resume"
    return note(change(state, paused=True), turn, DecisionType.PAUSED, REQUESTED, message), message


def _resume(state: RolloutState, turn: Turn) -> Answer:
    candidate, rollout, name = candidate_of(state), turn.rollout, candidate_name(state, turn)
    waits_for = wait_reason(rollout, candidate) if candidate.phase is Phase.WAITING else None
    if candidate.paused:
        gate = "; the gate is still closed: resume it again" if waits_for == MANUAL_GATE else ""
        message = f"{name} goes on{gate}"
        return note(change(state, paused=False), turn, DecisionType.RESUMED, REQUESTED, message), message
    if waits_for == MANUAL_GATE:
        opened = {*candidate.opened_gates, *closed_gates(rollout, candidate)} & set(rollout.manual_gates or ())
        message = f"a person opened the gate of {name} at {candidate.weight} %"
        state = change(state, opened_gates=sorted(opened))
        return note(state, turn, DecisionType.RESUMED, REQUESTED, message), message
    instead = f": use promote@{candidate.revision}" if waits_for == AUTO_PROMOTE_OFF else ""
    raise _RefusedError(f"{name} is not paused and no gate holds it{instead}")


def _retry(state: RolloutState, turn: Turn) -> Answer:
    assert state.rejected is not None
    message = f"{state.rejected.version} is tried again"
    return forgive(state, turn, REQUESTED, message), message


_VERBS: dict[str, Callable[[RolloutState, Turn], Answer]] = {
    "promote": _promote,
    "abort": _abort,
    "pause": _pause,
    "resume": _resume,
    "retry": _retry,
}
