"""Which Events a change of the conditions is worth: one for each condition whose status or reason moved."""

from collections.abc import Mapping
from typing import Any

from tunewright_api.names import ConditionType
from tunewright_api.rollout_status import DecisionType
from tunewright_operator.reconcile.result import Event

SUCCEEDED = "Succeeded"
# Decisions that come with a condition of their own.
_TOLD = {DecisionType.ROLLED_BACK, DecisionType.ABORTED}
# True is bad news for these; for all others False is.
_ABNORMAL = {ConditionType.STALLED, ConditionType.FAILED, ConditionType.DEGRADED}
# False for the reason that Reconciling tells means: not yet. That is no news, and no warning.
_NOT_YET = {ConditionType.ACCEPTED, ConditionType.READY}
# Good or bad in neither state: people suspend and resume.
_NEUTRAL = {ConditionType.SUSPENDED}
# Says for kstatus what another condition says already; an Event about each would come twice.
_SILENT = {ConditionType.STALLED}


def compute_events(old: Mapping[str, Any], new: Mapping[str, Any]) -> tuple[Event, ...]:
    """Events for going from one status to another, both as stored: decisions of a rollout, then conditions."""
    return (*_decisions(old, new), *_conditions(old, new))


def _decisions(old: Mapping[str, Any], new: Mapping[str, Any]) -> tuple[Event, ...]:
    """One Event for each new entry of the history, oldest first. A rollback is told by the condition Degraded."""
    known = {_entry(decision) for decision in old.get("history") or ()}
    fresh = [d for d in reversed(new.get("history") or ()) if _entry(d) not in known and d["decision"] not in _TOLD]
    return tuple(Event("Normal", d["decision"], d.get("message") or d["reason"]) for d in fresh)


def _entry(decision: Mapping[str, Any]) -> tuple[Any, ...]:
    """What tells decisions apart: equal holds in a row are one entry, whose time and count move."""
    held = decision["decision"] == DecisionType.HELD
    return (*(decision[k] for k in ("decision", "revision", "weight", "reason")), None if held else decision["time"])


def _conditions(old: Mapping[str, Any], new: Mapping[str, Any]) -> tuple[Event, ...]:
    before = {c["type"]: (c["status"], c["reason"]) for c in old.get("conditions") or ()}
    conditions = new.get("conditions") or ()
    under_way = {c["reason"] for c in conditions if c["type"] == ConditionType.RECONCILING}
    moved = [c for c in conditions if before.get(c["type"]) != (c["status"], c["reason"])]
    return tuple(
        Event(_severity(condition), _reason(condition), condition.get("message") or condition["type"])
        for condition in moved
        if condition["type"] not in _SILENT and not (condition["type"] in _NOT_YET and condition["reason"] in under_way)
    )


def _severity(condition: Mapping[str, Any]) -> str:
    if condition["type"] in _NEUTRAL:
        return "Normal"
    bad = "True" if condition["type"] in _ABNORMAL else "False"
    return "Warning" if condition["status"] == bad else "Normal"


def _reason(condition: Mapping[str, Any]) -> str:
    """`Trained` says more than `Succeeded` where the condition is not named beside it."""
    reason: str = condition["type"] if condition["reason"] == SUCCEEDED else condition["reason"]
    return reason
