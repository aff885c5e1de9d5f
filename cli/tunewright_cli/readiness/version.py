"""Readiness of a ModelVersion: its files are what the record says, and a person has approved them."""

from collections.abc import Sequence

from tunewright_cli.chain.model import Object
from tunewright_cli.chain.pods import owner
from tunewright_cli.chain.states import condition
from tunewright_cli.kinds import Kind
from tunewright_cli.readiness.model import Outcome, Step, about_of, after, seen_step
from tunewright_cli.readiness.pods import running_step, started_step


def version_steps(version: Object, pods: Sequence[Object], namespace: str) -> list[Step]:
    """The checks of a version, in order."""
    name = version["metadata"]["name"]
    own = [pod for pod in pods if owner(pod) == (Kind.VERSION.title, name)]
    steps = [seen_step(version), verified_step(version, own, namespace)]
    return [*steps, after(steps, approved_step(version, namespace))]


def verified_step(version: Object, pods: Sequence[Object], namespace: str) -> Step:
    """Whether every file has the recorded digest."""
    title, name = "its files are what the record says", version["metadata"]["name"]
    found = condition(version, "Verified")
    if found and found["status"] == "True":
        return Step(title, Outcome.PASSED)
    message = (found or {}).get("message") or version.get("status", {}).get("message") or "not verified yet"
    stalled = condition(version, "Stalled")
    if found and (found["status"] == "False" or stalled):
        fix = f"restore the files or register a new version, then: kubectl -n {namespace} delete job {name}-verify"
        failed = next((pod for pod in pods if pod.get("status", {}).get("phase") == "Failed"), None)
        return Step(
            title, Outcome.FAILED, message, fix, about_of(version), failed["metadata"]["name"] if failed else ""
        )
    for step in (started_step(pods, title, namespace), running_step(pods, title, namespace)):
        if step.outcome is Outcome.FAILED:
            return step
    return Step(title, Outcome.WAITING, message, "wait: every file is read once", about_of(version))


def approved_step(version: Object, namespace: str) -> Step:
    """Whether a person has approved it."""
    title, name = "a person has approved it", version["metadata"]["name"]
    approval = version["spec"].get("approval") or {}
    if approval.get("decision") == "Approved":
        return Step(title, Outcome.PASSED)
    command = f"tunewright approve {name} -n {namespace}"
    if approval:
        because = f": {approval['reason']}" if approval.get("reason") else ""
        message = f"{name} was rejected by {approval.get('approvedBy')}{because}"
        return Step(title, Outcome.FAILED, message, f"refer to another version, or {command}", about_of(version))
    return Step(title, Outcome.WAITING, f"{name} waits for a decision", command, about_of(version))
