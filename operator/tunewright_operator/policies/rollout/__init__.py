"""How an InferenceService moves from one revision to the next: pure rules over what status remembers.

window = due_check(state, rollout, world)             # measure it, if there is one
plan = plan_rollout(state, rollout, world, verdict)   # write plan.state to status, then carry out the rest
"""

from tunewright_operator.policies.rollout.clocks import is_overdue, restart_clocks
from tunewright_operator.policies.rollout.moves import is_rejected
from tunewright_operator.policies.rollout.outcome import RETIRE_SECONDS
from tunewright_operator.policies.rollout.plan import due_check, plan_rollout
from tunewright_operator.policies.rollout.sentences import describe
from tunewright_operator.policies.rollout.steps import checks_of, default_metrics, weights_of
from tunewright_operator.policies.rollout.types import RolloutPlan, RolloutState, Window, World, read_state

__all__ = [
    "RETIRE_SECONDS",
    "RolloutPlan",
    "RolloutState",
    "Window",
    "World",
    "checks_of",
    "default_metrics",
    "describe",
    "due_check",
    "is_overdue",
    "is_rejected",
    "plan_rollout",
    "read_state",
    "restart_clocks",
    "weights_of",
]
