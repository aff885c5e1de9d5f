"""From an object's status to its figures on /metrics."""

from collections.abc import Mapping, Sequence
from typing import Any

from tunewright_api.names import ConditionType
from tunewright_api.rollout_status import DecisionType
from tunewright_operator.observe.times import parse_time

Status = Mapping[str, Any]
# values of a metric's labels, in their order -> value
Samples = Mapping[tuple[str, ...], float]


def weight_samples(namespace: str, name: str, status: Status) -> Samples:
    """The candidate's percent of the traffic, by version and revision."""
    candidate = status.get("candidate")
    if not candidate:
        return {}
    return {(namespace, name, candidate["version"], candidate["revision"]): candidate["weight"]}


def started_samples(namespace: str, name: str, status: Status) -> Samples:
    """When the candidate set out, in seconds since 1970."""
    candidate = status.get("candidate")
    return {(namespace, name): _seconds(candidate["startedAt"])} if candidate else {}


def rejected_samples(namespace: str, name: str, status: Status) -> Samples:
    """1 for the version that was rolled back, by version and reason."""
    rejected = status.get("rejected")
    return {(namespace, name, rejected["version"], rejected["reason"]): 1} if rejected else {}


def ready_samples(namespace: str, name: str, status: Status) -> Samples:
    """Whether the service is Ready, 0 or 1; nothing for one that was asked to have no pods."""
    if all(condition["type"] != ConditionType.READY for condition in status.get("conditions") or ()):
        return {}
    return {(namespace, name): float(_true_condition(status, ConditionType.READY) is not None)}


def failed_samples(namespace: str, name: str, status: Status) -> Samples:
    """When the job failed, in seconds since 1970, by reason."""
    failed = _true_condition(status, ConditionType.FAILED)
    return {(namespace, name, failed["reason"]): _seconds(failed["lastTransitionTime"])} if failed else {}


def new_decisions(old: Status, new: Status) -> list[tuple[str, str]]:
    """(decision, reason) of each entry of the history that the old status did not have, the oldest first."""
    before, after = ([_identity(entry) for entry in status.get("history") or ()] for status in (old, new))
    count = next(n for n in range(len(after) + 1) if after[n:] == before[: len(after) - n])
    return [(entry["decision"], entry["reason"]) for entry in reversed((new.get("history") or [])[:count])]


def _identity(entry: Status) -> Sequence[Any]:
    """What tells an entry from others. A hold that goes on keeps its entry, but for its time and count."""
    time = "" if entry["decision"] == DecisionType.HELD else entry["time"]
    return entry["decision"], entry["revision"], entry["weight"], entry["reason"], time


def _true_condition(status: Status, kind: ConditionType) -> Status | None:
    conditions = status.get("conditions") or ()
    return next((one for one in conditions if one["type"] == kind and one["status"] == "True"), None)


def _seconds(time: str) -> float:
    return parse_time(time).timestamp()
