"""Which Events a change of the conditions is worth: one for each condition whose status or reason moved."""

from collections.abc import Mapping
from typing import Any

from tunewright_api.names import ConditionType
from tunewright_operator.reconcile.result import Event

# True is bad news for these; for all others False is.
_ABNORMAL = {ConditionType.STALLED, ConditionType.FAILED}
# Says for kstatus what another condition says already; an Event about each would come twice.
_SILENT = {ConditionType.STALLED}


def compute_events(old: Mapping[str, Any], new: Mapping[str, Any]) -> tuple[Event, ...]:
    """Events for going from one status to another, both as stored."""
    before = {c["type"]: (c["status"], c["reason"]) for c in old.get("conditions") or ()}
    moved = [c for c in new.get("conditions") or () if before.get(c["type"]) != (c["status"], c["reason"])]
    return tuple(
        Event(_severity(condition), condition["reason"], condition.get("message") or condition["type"])
        for condition in moved
        if condition["type"] not in _SILENT
    )


def _severity(condition: Mapping[str, Any]) -> str:
    bad = "True" if condition["type"] in _ABNORMAL else "False"
    return "Warning" if condition["status"] == bad else "Normal"
