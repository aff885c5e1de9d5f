"""Who answers when the stable revision may not any more, and neither a candidate nor the target can take its place."""

from dataclasses import replace

from tunewright_api.rollout_status import DecisionType, RolloutDecision
from tunewright_operator.policies.rollout.history import record
from tunewright_operator.policies.rollout.types import RolloutState, Turn

_BAD = {DecisionType.ROLLED_BACK, DecisionType.ABORTED}


def fall_back(state: RolloutState, turn: Turn) -> RolloutState | None:
    """The newest living revision becomes the stable one: of those that may be served and were not undone, the one that
    a decision was last made about. None without such a revision."""
    revision = next((name for name in _newest_first(state, turn) if _may_answer(name, state, turn)), None)
    if revision is None:
        return None
    version = turn.world.revisions[revision].version
    why = turn.world.withdrawn_reasons.get(state.stable or "") or "the stable revision is gone"
    entry = RolloutDecision(
        time=turn.time,
        decision=DecisionType.PROMOTED,
        revision=revision,
        version=version,
        weight=100,
        reason="FellBack",
        message=f"{why}; {version}, which still lives, gets all of the traffic",
    )
    return replace(record(state, entry), stable=revision)


def _newest_first(state: RolloutState, turn: Turn) -> list[str]:
    """All revisions, each once. The first stable one is in no history."""
    return list(dict.fromkeys([*(entry.revision for entry in state.history), *sorted(turn.world.revisions)]))


def _may_answer(name: str, state: RolloutState, turn: Turn) -> bool:
    seen = turn.revision(name)
    rejected = state.rejected is not None and state.rejected.revision == name
    if seen is None or rejected or name == state.stable or name in turn.world.withdrawn:
        return False
    newest = next((entry.decision for entry in state.history if entry.revision == name), None)
    return newest not in _BAD
