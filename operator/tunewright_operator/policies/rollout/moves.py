"""The moves of a rollout: each takes a state to the next one and says so in the history."""

from dataclasses import replace
from typing import Any

from tunewright_api.rollout import Strategy
from tunewright_api.rollout_status import (
    CandidateStatus,
    DecisionType,
    Phase,
    RejectedRevision,
    RolloutDecision,
)
from tunewright_operator.manifests.server import Revision
from tunewright_operator.policies.rollout.history import record
from tunewright_operator.policies.rollout.sentences import candidate_name, share, stable_name, waiting_sentence
from tunewright_operator.policies.rollout.steps import mirror_weight, next_weight, passes_needed, wait_reason
from tunewright_operator.policies.rollout.types import RolloutState, Turn

_LONGEST = 2000


def candidate_of(state: RolloutState) -> CandidateStatus:
    """The candidate, where there must be one."""
    assert state.candidate is not None
    return state.candidate


def change(state: RolloutState, **fields: Any) -> RolloutState:
    """The state with these fields of its candidate changed."""
    return replace(state, candidate=candidate_of(state).model_copy(update=fields))


def note(state: RolloutState, turn: Turn, decision: DecisionType, reason: str, message: str) -> RolloutState:
    """A decision about the candidate, which keeps the weight that it has."""
    candidate = candidate_of(state)
    return _note(state, turn, candidate, candidate.weight, decision=decision, reason=reason, message=message)


def _note(
    state: RolloutState,
    turn: Turn,
    whose: CandidateStatus | RejectedRevision,
    weight: int,
    *,
    decision: DecisionType,
    reason: str,
    message: str,
) -> RolloutState:
    entry = RolloutDecision(
        time=turn.time,
        decision=decision,
        revision=whose.revision,
        version=whose.version,
        weight=weight,
        reason=reason,
        message=cut(message),
    )
    return record(state, entry)


def cut(text: str) -> str:
    """A text that fits into status."""
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def start(state: RolloutState, turn: Turn, target: Revision) -> RolloutState:
    """A candidate begins, without traffic."""
    candidate = CandidateStatus(
        version=target.version,
        revision=target.name,
        weight=0,
        ready_replicas=0,
        replicas=0,
        phase=Phase.STARTING,
        started_at=turn.time,
    )
    state = replace(state, candidate=candidate, analysis=None)
    name, stable = candidate_name(state, turn), stable_name(state, turn)
    if turn.rollout.strategy is Strategy.RECREATE:
        message = f"{name} starts as soon as the pods of {stable} are gone"
    else:
        message = f"{name} starts; {stable} keeps all of the traffic"
    return note(state, turn, DecisionType.STARTED, "NewRevision", message)


def promote(state: RolloutState, turn: Turn, reason: str, message: str) -> RolloutState:
    """The candidate becomes the stable revision and gets all of the traffic."""
    candidate = candidate_of(state)
    state = _note(state, turn, candidate, 100, decision=DecisionType.PROMOTED, reason=reason, message=message)
    return replace(state, stable=candidate.revision, candidate=None)


def undo(state: RolloutState, turn: Turn, decision: DecisionType, reason: str, message: str) -> RolloutState:
    """All traffic goes back, and the revision is remembered so that it is not tried again."""
    candidate = candidate_of(state)
    state = _note(state, turn, candidate, 0, decision=decision, reason=reason, message=message)
    target = turn.world.target
    asked = target.fingerprint if target and target.name == candidate.revision else ""
    rejected = RejectedRevision(
        revision=candidate.revision,
        version=candidate.version,
        fingerprint=asked or None,
        reason=reason,
        message=cut(message),
        time=turn.time,
    )
    return replace(state, candidate=None, rejected=rejected)


def is_rejected(state: RolloutState, target: Revision) -> bool:
    """Whether this was rolled back. The same with another server image was too: an upgrade mends no model."""
    rejected = state.rejected
    if rejected is None:
        return False
    if rejected.fingerprint and target.fingerprint:
        return rejected.fingerprint == target.fingerprint
    return rejected.revision == target.name


def drop(state: RolloutState, turn: Turn, reason: str, message: str) -> RolloutState:
    """The spec no longer asks for the candidate."""
    candidate = candidate_of(state)
    state = _note(state, turn, candidate, 0, decision=DecisionType.REPLACED, reason=reason, message=message)
    return replace(state, candidate=None)


def forgive(state: RolloutState, turn: Turn, reason: str, message: str) -> RolloutState:
    """The rejected revision may be tried again."""
    assert state.rejected is not None
    state = _note(state, turn, state.rejected, 0, decision=DecisionType.RETRIED, reason=reason, message=message)
    return replace(state, rejected=None)


def move_on(state: RolloutState, turn: Turn, reason: str, why: str) -> RolloutState:
    """What comes after the present stage, which is passed."""
    candidate, rollout = candidate_of(state), turn.rollout
    waits_for = wait_reason(rollout, candidate)
    if waits_for:
        return _wait(state, turn, waits_for)
    if rollout.strategy is Strategy.CANARY:
        weight = next_weight(rollout, candidate.weight)
        if rollout.mirror and not candidate.weight and candidate.phase is not Phase.MIRRORING:
            return _advance(state, turn, reason, why, phase=Phase.MIRRORING, mirror_weight=mirror_weight(rollout))
        if weight is not None:
            step = candidate.step + 1
            phase = Phase.PROGRESSING
            return _advance(state, turn, reason, why, phase=phase, weight=weight, mirror_weight=0, step=step)
    elif candidate.step < passes_needed(rollout):
        copies = mirror_weight(rollout)
        phase = Phase.MIRRORING if copies else Phase.PROGRESSING
        return _advance(state, turn, reason, why, phase=phase, mirror_weight=copies)
    message = f"{why}; {candidate_name(state, turn)} gets all of the traffic"
    return promote(state, turn, reason, message)


def _advance(state: RolloutState, turn: Turn, reason: str, why: str, **fields: Any) -> RolloutState:
    """The next stage begins, and with it the next window."""
    state = change(state, checked_at=turn.time, **fields)
    candidate = candidate_of(state)
    passed = f", {candidate.step} of {passes_needed(turn.rollout)} checks passed" if _counts_passes(state, turn) else ""
    message = f"{why}; {candidate_name(state, turn)} {share(candidate)}{passed}"
    return note(state, turn, DecisionType.ADVANCED, reason, message)


def _counts_passes(state: RolloutState, turn: Turn) -> bool:
    return turn.rollout.strategy is Strategy.BLUE_GREEN and candidate_of(state).step > 0


def waiting_copies(state: RolloutState, turn: Turn) -> int:
    """Percent of the requests that are copied to a candidate that waits: what the spec asks for now. A Canary that has
    got none so far gets them behind its gate."""
    candidate = candidate_of(state)
    begins = turn.rollout.strategy is Strategy.BLUE_GREEN and not candidate.weight
    return mirror_weight(turn.rollout) if candidate.mirror_weight or begins else 0


def _wait(state: RolloutState, turn: Turn, reason: str) -> RolloutState:
    candidate = candidate_of(state)
    if candidate.phase is Phase.WAITING:
        return state
    message = waiting_sentence(candidate_name(state, turn), candidate, reason)
    checked_at = candidate.checked_at or turn.time
    copies = waiting_copies(state, turn)
    state = change(state, phase=Phase.WAITING, checked_at=checked_at, mirror_weight=copies)
    return note(state, turn, DecisionType.WAITING, reason, message)
