"""An InferenceService: its revisions, and the way from one to the next."""

from collections.abc import Mapping, Sequence

from tunewright_cli.chain.model import Candidate, Object, Revision, Rules, Service
from tunewright_cli.chain.pods import describe_pods
from tunewright_cli.chain.states import condition, service_state

Pods = Mapping[str, Sequence[Object]]

# What the schema fills in, for objects that no apiserver has seen.
_STEP, _MAX = 10, 50
_UNITS = {"s": 1, "m": 60, "h": 3600}


def describe_service(service: Object, wants: str, pods: Pods) -> Service:
    """The service; `pods` by revision."""
    spec, status = service["spec"], service.get("status", {})
    ready, alias = condition(service, "Ready"), spec["model"].get("alias")
    stable, candidate = status.get("stable"), status.get("candidate")
    known = {one["revision"] for one in (stable, candidate) if one}
    return {
        "name": service["metadata"]["name"],
        "state": service_state(service),
        "ready": str(ready["status"]) if ready else "Unknown",
        "reason": _reason(service),
        "message": status.get("message") or "",
        "created": service["metadata"].get("creationTimestamp") or "",
        "url": status.get("url"),
        "wants": wants,
        "alias": f"{alias['modelName']}@{alias['name']}" if alias else None,
        "provider": (status.get("traffic") or {}).get("provider")
        or (spec.get("traffic") or {}).get("provider")
        or "None",
        "providerMessage": (status.get("traffic") or {}).get("message") or "",
        "rules": describe_rules(spec.get("rollout") or {}),
        "stable": _revision("stable", stable, pods) if stable else None,
        "candidate": _candidate(candidate, spec.get("rollout") or {}, pods) if candidate else None,
        "analysis": status.get("analysis"),
        "history": status.get("history") or [],
        "rejected": status.get("rejected"),
        "lastHandledRequest": status.get("lastHandledRequest"),
        "performance": status.get("performance"),
        "lastFailure": status.get("lastFailure"),
        "otherPods": describe_pods(pod for name, some in pods.items() if name not in known for pod in some),
    }


def steps_of(rollout: Object) -> list[int]:
    """Weights that a Canary goes through before the promotion; empty for the other strategies."""
    if rollout.get("strategy") != "Canary":
        return []
    if steps := rollout.get("steps"):
        return list(steps)
    width = rollout.get("stepWeight") or min(_STEP, rollout.get("maxWeight") or _STEP)
    limit = rollout.get("maxWeight") or max(_MAX, width)
    # The last step is the limit itself, also where the width does not divide it.
    return [*range(width, limit, width), limit]


def describe_rules(rollout: Object) -> Rules:
    """What a rollout is held to."""
    interval = rollout.get("interval") or "60s"
    return {
        "strategy": rollout.get("strategy") or "BlueGreen",
        "intervalSeconds": int(interval[:-1]) * _UNITS[interval[-1]],
        "threshold": rollout.get("threshold", 1),
        "inconclusiveLimit": rollout.get("inconclusiveLimit", 30),
        "minRequests": rollout.get("minRequests", 20),
        "manualGates": rollout.get("manualGates") or [],
        "autoPromote": rollout.get("autoPromote", True),
    }


def _reason(service: Object) -> str:
    """What matters most, as one word."""
    for kind in ("Stalled", "Reconciling", "Ready"):
        if found := condition(service, kind):
            return str(found["reason"])
    return ""


def _revision(role: str, status: Object, pods: Pods) -> Revision:
    return {
        "role": role,
        "version": status["version"],
        "revision": status["revision"],
        "weight": status.get("weight", 100),
        "readyReplicas": status.get("readyReplicas", 0),
        "replicas": status.get("replicas", 0),
        "pods": describe_pods(pods.get(status["revision"], ())),
    }


def _candidate(status: Object, rollout: Object, pods: Pods) -> Candidate:
    return {
        **_revision("candidate", status, pods),
        "phase": status.get("phase") or "Starting",
        "step": status.get("step", 0),
        "steps": steps_of(rollout),
        "mirrorWeight": status.get("mirrorWeight", 0),
        "paused": bool(status.get("paused")),
        "openedGates": status.get("openedGates") or [],
        "failedChecks": status.get("failedChecks", 0),
        "inconclusiveChecks": status.get("inconclusiveChecks", 0),
        "startedAt": status.get("startedAt") or "",
        "checkedAt": status.get("checkedAt"),
    }
