"""Conditions as one declaration: the whole list as it shall be, with the transition times of what already held."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from tunewright_api.conditions import ConditionStatus
from tunewright_api.names import ConditionType
from tunewright_operator.status.conditions import Conditions, set_condition


@dataclass(frozen=True)
class State:
    """One condition, without its book-keeping."""

    kind: ConditionType
    status: ConditionStatus
    reason: str
    message: str


def declare(previous: Conditions, states: Sequence[State], *, generation: int, now: datetime) -> Conditions:
    """Exactly these conditions; what is not declared is gone."""
    kinds = {state.kind.value for state in states}
    conditions = tuple(c for c in previous if c.type in kinds)
    for state in states:
        conditions = set_condition(
            conditions, state.kind, state.status, state.reason, state.message[:4096], generation=generation, now=now
        )
    return conditions
