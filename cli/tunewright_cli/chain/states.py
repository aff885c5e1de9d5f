"""How an object is, from its conditions: one word for each."""

from typing import Any

from tunewright_cli.chain.model import Object, State


def condition(item: Object, kind: str) -> Object | None:
    """A condition of the object, or None."""
    for one in item.get("status", {}).get("conditions") or ():
        if one["type"] == kind:
            found: Object = one
            return found
    return None


def condition_status(item: Object, kind: str) -> str:
    """True, False or Unknown; Unknown too where the condition is not there."""
    found = condition(item, kind)
    return str(found["status"]) if found else "Unknown"


def is_seen(item: Object) -> bool:
    """Whether the operator has looked at the object as it is now."""
    seen: Any = item.get("status", {}).get("observedGeneration")
    return bool(seen == item["metadata"].get("generation", seen))


def job_state(job: Object) -> State:
    """State of a FineTuneJob."""
    if condition_status(job, "Failed") == "True":
        return State.FAILED
    if condition_status(job, "Complete") == "True":
        return State.READY
    if condition_status(job, "Stalled") == "True":
        return State.FAILED
    if condition_status(job, "Suspended") == "True":
        return State.IDLE
    return State.PROGRESSING


def version_state(version: Object) -> State:
    """State of a ModelVersion: Ready is verified and approved."""
    decision = (version["spec"].get("approval") or {}).get("decision")
    if condition_status(version, "Verified") == "False" or condition_status(version, "Stalled") == "True":
        return State.FAILED
    if decision == "Rejected":
        return State.FAILED
    if condition_status(version, "Verified") != "True":
        return State.PROGRESSING
    return State.READY if decision == "Approved" else State.WAITING


def service_state(service: Object) -> State:
    """State of an InferenceService."""
    ready, stalled = condition_status(service, "Ready"), condition_status(service, "Stalled")
    status = service.get("status", {})
    candidate = status.get("candidate") or {}
    if ready == "True" and (stalled == "True" or condition_status(service, "Degraded") == "True"):
        return State.DEGRADED
    if stalled == "True":
        return State.FAILED
    if candidate and (candidate.get("paused") or candidate.get("phase") == "Waiting"):
        return State.WAITING
    if ready == "True":
        moving = candidate or condition_status(service, "Reconciling") == "True" or not is_seen(service)
        return State.PROGRESSING if moving else State.READY
    if condition(service, "Ready") is None and is_seen(service) and condition_status(service, "Accepted") == "True":
        return State.IDLE
    found = condition(service, "Ready")
    return State.WAITING if found and found["reason"] == "NotApproved" else State.PROGRESSING


def because(told: Object) -> str:
    """`Reason: message` of a check or a rejection, without the reason where the message begins with it."""
    reason, message = str(told["reason"]), str(told.get("message") or "")
    return message if message.startswith(reason) else f"{reason}: {message}".rstrip(": ")
