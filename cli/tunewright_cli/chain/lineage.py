"""Dataset, job and version: how a version came to be."""

from tunewright_cli.chain.find import Objects
from tunewright_cli.chain.links import Links
from tunewright_cli.chain.model import Dataset, Job, Lineage, Object, Version
from tunewright_cli.chain.pods import describe_pods, owner
from tunewright_cli.chain.states import condition_status, job_state, version_state
from tunewright_cli.kinds import Kind


def describe_lineage(version: str, objects: Objects, links: Links) -> Lineage:
    """The lineage of a version, which need not exist."""
    job = objects.jobs.get(links.job_of_version(version) or "")
    record = objects.versions.get(version)
    return {
        "dataset": _dataset(job) if job else None,
        "job": _job(job, objects.pods) if job else None,
        "version": _version(record, objects.pods) if record else None,
    }


def _dataset(job: Object) -> Dataset:
    spec, found = job["spec"]["dataset"], job.get("status", {}).get("dataset") or {}
    parts = spec.get("mixture") or [spec]
    return {
        "uri": " + ".join(part["uri"] for part in parts),
        "format": " + ".join(dict.fromkeys(part["format"] for part in parts)),
        "records": found.get("records"),
        "train": found.get("train"),
        "validation": found.get("validation"),
        "truncated": found.get("truncated"),
        "digest": found.get("digest"),
    }


def _job(job: Object, pods: tuple[Object, ...]) -> Job:
    spec, status, name = job["spec"], job.get("status", {}), job["metadata"]["name"]
    return {
        "name": name,
        "state": job_state(job),
        "stage": status.get("stage") or "Pending",
        "message": status.get("message") or "",
        "created": job["metadata"].get("creationTimestamp") or "",
        "started": status.get("startTime"),
        "completed": status.get("completionTime"),
        "baseModel": spec["baseModel"]["uri"],
        "method": next(iter(spec["method"])),
        "nodes": spec.get("numNodes", 1),
        "progress": status.get("progress"),
        "checkpointStep": (status.get("lastCheckpoint") or {}).get("step"),
        "restarts": status.get("restarts") or [],
        "evaluation": status.get("evaluation") or [],
        "pods": describe_pods(pod for pod in pods if owner(pod) == (Kind.JOB.title, name) and _under_way(pod)),
    }


def _version(version: Object, pods: tuple[Object, ...]) -> Version:
    spec, name = version["spec"], version["metadata"]["name"]
    approval = spec.get("approval") or {}
    artifact = spec["artifact"]
    return {
        "name": name,
        "state": version_state(version),
        "message": version.get("status", {}).get("message") or "",
        "created": version["metadata"].get("creationTimestamp") or "",
        "modelName": spec["modelName"],
        "version": spec["version"],
        "kind": spec["kind"],
        "digest": artifact["digest"],
        "uri": artifact["uri"],
        "sizeBytes": artifact["sizeBytes"],
        "verified": condition_status(version, "Verified"),
        "approval": {
            "decision": approval.get("decision"),
            "by": approval.get("approvedBy"),
            "reason": approval.get("reason"),
        },
        "aliases": spec.get("aliases") or [],
        "evaluation": spec.get("evaluation") or [],
        "pods": describe_pods(pod for pod in pods if owner(pod) == (Kind.VERSION.title, name) and _under_way(pod)),
    }


def _under_way(pod: Object) -> bool:
    """A pod that has done its work has nothing more to tell."""
    return bool(pod.get("status", {}).get("phase") != "Succeeded")
