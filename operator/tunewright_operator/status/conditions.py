"""Conditions as a value: read, set and remove without ever touching the clock or the cluster.

`Reconciling` and `Stalled` are abnormal-true conditions of kstatus: they exist only while True, and never together.
"""

from collections.abc import Iterable
from datetime import datetime

from tunewright_api.conditions import Condition, ConditionStatus
from tunewright_api.names import ConditionType
from tunewright_operator.observe.times import format_time

Conditions = tuple[Condition, ...]

TRUE, FALSE, UNKNOWN = ConditionStatus.TRUE, ConditionStatus.FALSE, ConditionStatus.UNKNOWN
_ONLY_WHILE_TRUE = {ConditionType.RECONCILING, ConditionType.STALLED}


def find(conditions: Iterable[Condition], kind: ConditionType) -> Condition | None:
    """The condition of this type, or None."""
    return next((c for c in conditions if c.type == kind), None)


def is_true(conditions: Iterable[Condition], kind: ConditionType) -> bool:
    """Whether the condition exists and is True."""
    found = find(conditions, kind)
    return found is not None and found.status is TRUE


def set_condition(
    conditions: Conditions,
    kind: ConditionType,
    status: ConditionStatus,
    reason: str,
    message: str,
    *,
    generation: int,
    now: datetime,
) -> Conditions:
    """Conditions with this one set, in its old place; lastTransitionTime moves only when the status changes."""
    old = find(conditions, kind)
    since = old.last_transition_time if old and old.status is status else format_time(now)
    new = Condition(
        type=kind.value,
        status=status,
        reason=reason,
        message=message,
        observed_generation=generation,
        last_transition_time=since,
    )
    if kind in _ONLY_WHILE_TRUE and status is not TRUE:
        return remove_condition(conditions, kind)
    if kind in _ONLY_WHILE_TRUE:
        (other,) = _ONLY_WHILE_TRUE - {kind}
        conditions = remove_condition(conditions, other)
    if old is None:
        return (*conditions, new)
    return tuple(new if c.type == kind else c for c in conditions)


def remove_condition(conditions: Conditions, *kinds: ConditionType) -> Conditions:
    """Conditions without these types."""
    return tuple(c for c in conditions if c.type not in kinds)
