"""A rollout in words, for a person on call. No sentence counts time down: status would be written every second."""

from tunewright_api.rollout import Rollout
from tunewright_api.rollout_status import CandidateStatus, Phase, Verdict
from tunewright_operator.policies.rollout.steps import AUTO_PROMOTE_OFF, MANUAL_GATE, is_judged, wait_reason
from tunewright_operator.policies.rollout.types import RolloutState, Turn


def candidate_name(state: RolloutState, turn: Turn) -> str:
    """The candidate's version; with its revision where the stable one is of the same version."""
    candidate = state.candidate
    assert candidate is not None
    version = candidate.version
    return f"{version} ({candidate.revision})" if version == _stable_version(state, turn) else version


def stable_name(state: RolloutState, turn: Turn) -> str:
    """The stable revision's version; with its revision where the candidate is of the same version."""
    version = _stable_version(state, turn)
    if version is None:
        return "the stable revision"
    return f"{version} ({state.stable})" if state.candidate and state.candidate.version == version else version


def _stable_version(state: RolloutState, turn: Turn) -> str | None:
    revision = turn.revision(state.stable)
    if revision:
        return revision.version
    return turn.target.version if turn.target and turn.target.name == state.stable else None


def share(candidate: CandidateStatus) -> str:
    """What the candidate gets of the traffic, as the end of a sentence."""
    if candidate.mirror_weight:
        return f"gets copies of {candidate.mirror_weight} % of the requests, whose answers are thrown away"
    return f"gets {candidate.weight} % of the traffic" if candidate.weight else "gets no traffic yet"


def pods_ready(ready: int, wanted: int, name: str) -> str:
    """Progress of pods."""
    return f"{ready} of {wanted} pods of {name} are ready"


def describe(state: RolloutState, rollout: Rollout) -> str:
    """One sentence about where the rollout stands; it changes only with a decision or a pod."""
    candidate = state.candidate
    if candidate is None:
        return _at_rest(state)
    if candidate.phase is Phase.STARTING:
        position = f"{pods_ready(candidate.ready_replicas, candidate.replicas, candidate.version)}; it gets no traffic"
    else:
        position = f"{candidate.version} {share(candidate)}"
    return "; ".join((position, *_next_step(state, rollout, candidate), *_tally(rollout, candidate)))


def _at_rest(state: RolloutState) -> str:
    rejected = state.rejected
    if rejected is None:
        return "the stable revision gets all of the traffic" if state.stable else "no revision may answer"
    left = "the stable revision gets all of the traffic" if state.stable else "nothing answers"
    return f"{rejected.version} was rolled back ({rejected.reason}): {rejected.message}; {left}"


def _next_step(state: RolloutState, rollout: Rollout, candidate: CandidateStatus) -> tuple[str, ...]:
    if candidate.paused:
        return ("paused until somebody runs tunewright resume",)
    if candidate.phase is Phase.STARTING:
        return ()
    if candidate.phase is Phase.WAITING:
        return (_waiting(state, rollout, candidate),)
    return (f"next check in ≤{rollout.interval}",) if is_judged(rollout) else ()


def _waiting(state: RolloutState, rollout: Rollout, candidate: CandidateStatus) -> str:
    failed = state.analysis if state.analysis and state.analysis.revision == candidate.revision else None
    if failed and failed.verdict is Verdict.FAIL:
        return f"the newest check failed: {failed.message}"
    match wait_reason(rollout, candidate):
        case "ManualGate":
            return f"it waits at the gate of {candidate.weight} % until somebody runs tunewright resume"
        case "AutoPromoteOff":
            return "it may take over, and waits until somebody runs tunewright promote"
    return "it goes on as soon as all its pods are ready"


def _tally(rollout: Rollout, candidate: CandidateStatus) -> tuple[str, ...]:
    if candidate.phase is Phase.STARTING or not is_judged(rollout):
        return ()
    failed = f"{candidate.failed_checks} of {rollout.threshold} failed checks"
    if not candidate.inconclusive_checks:
        return (failed,)
    return (f"{failed} and {candidate.inconclusive_checks} of {rollout.inconclusive_limit} inconclusive ones",)


def waiting_sentence(name: str, candidate: CandidateStatus, reason: str) -> str:
    """Why a rollout stops here, and how to let it go on."""
    if reason == MANUAL_GATE:
        return f"{name} {share(candidate)}; the gate there is closed until somebody runs tunewright resume"
    assert reason == AUTO_PROMOTE_OFF
    return f"{name} may take over, but autoPromote is off: it waits until somebody runs tunewright promote"
