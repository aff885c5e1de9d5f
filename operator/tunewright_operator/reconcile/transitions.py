"""Events for what changed in the conditions between two statuses."""

from collections.abc import Iterable

from tunewright_api.conditions import Condition
from tunewright_api.names import ConditionType
from tunewright_operator.reconcile.result import Event
from tunewright_operator.status.conditions import FALSE, find

_LOUD = (
    ConditionType.ACCEPTED,
    ConditionType.VERIFIED,
    ConditionType.APPROVED,
    ConditionType.READY,
    ConditionType.STALLED,
)


def transition_events(old: Iterable[Condition], new: Iterable[Condition]) -> tuple[Event, ...]:
    """One Event per condition whose status or reason is new; a bad turn is a Warning."""
    before, after = tuple(old), tuple(new)
    events = []
    for kind in _LOUD:
        condition, was = find(after, kind), find(before, kind)
        if condition is None or (was and (was.status, was.reason) == (condition.status, condition.reason)):
            continue
        events.append(Event(_severity(kind, condition, was), condition.reason, condition.message))
    return tuple(dict.fromkeys(events))


def _severity(kind: ConditionType, condition: Condition, was: Condition | None) -> str:
    """`Ready=False` is news only when it was not so before; the others are bad whenever they are False."""
    if kind is ConditionType.STALLED:
        return "Warning"
    if kind is ConditionType.READY:
        return "Warning" if condition.status is FALSE and was is not None and was.status is not FALSE else "Normal"
    return "Warning" if condition.status is FALSE else "Normal"
