"""What all children share: labels, owner, a pod that passes Pod Security `restricted`."""

import hashlib
from collections.abc import Iterable
from typing import Any

from tunewright_api.names import API_VERSION, LABEL_KIND, LABEL_MANAGED_BY, LABEL_NAME, MANAGED_BY, ExitCode
from tunewright_api.scheduling import Scheduling
from tunewright_api.uris import claim_mount

Manifest = dict[str, Any]

RUN_AS = 65532


def owner_labels(owner: Manifest) -> dict[str, str]:
    """Labels by which the operator finds the children of an object."""
    return {
        LABEL_MANAGED_BY: MANAGED_BY,
        LABEL_KIND: owner["kind"],
        LABEL_NAME: owner["metadata"]["name"],
    }


def owner_reference(owner: Manifest) -> Manifest:
    """Controller reference, so that the garbage collector removes the children with their owner."""
    return {
        "apiVersion": API_VERSION,
        "kind": owner["kind"],
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "controller": True,
    }


def child_metadata(owner: Manifest, name: str, labels: dict[str, str] | None = None) -> Manifest:
    """metadata of a child of `owner`."""
    return {
        "name": name,
        "namespace": owner["metadata"]["namespace"],
        "labels": owner_labels(owner) | (labels or {}),
        "ownerReferences": [owner_reference(owner)],
    }


def restricted_pod_security() -> Manifest:
    """Pod securityContext that Pod Security `restricted` accepts."""
    return {
        "runAsNonRoot": True,
        "runAsUser": RUN_AS,
        "runAsGroup": RUN_AS,
        "fsGroup": RUN_AS,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def restricted_container_security() -> Manifest:
    """Container securityContext that Pod Security `restricted` accepts, with a read-only root."""
    return {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def pod_failure_policy(container: str, *, ignore_disruption: bool = True) -> Manifest:
    """What another pod would meet as well ends the Job; a drained node is no failure of a Job that stands alone."""
    final = sorted(code.value for code in ExitCode if code is not ExitCode.OK and not code.retriable)
    fail = {"action": "FailJob", "onExitCodes": {"containerName": container, "operator": "In", "values": final}}
    ignore = {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
    return {"rules": [fail, ignore] if ignore_disruption else [fail]}


def scrape_annotations(port: int) -> dict[str, str]:
    """For a Prometheus that finds pods by their annotations; the Prometheus operator reads the chart's monitors."""
    return {
        "prometheus.io/scrape": "true",
        "prometheus.io/port": str(port),
        "prometheus.io/path": "/metrics",
    }


def placement(scheduling: Scheduling | None) -> Manifest:
    """The fields of a pod's spec that say where it may run."""
    return scheduling.to_dict() if scheduling else {}


def claim_volumes(
    claims: Iterable[str], *, read_only: frozenset[str] = frozenset()
) -> tuple[list[Manifest], list[Manifest]]:
    """(volumes, volumeMounts) of these claims at their places, in a stable order."""
    names = sorted(set(claims))
    volumes = [{"name": _volume_name(name), "persistentVolumeClaim": {"claimName": name}} for name in names]
    mounts = [
        {"name": _volume_name(name), "mountPath": str(claim_mount(name)), "readOnly": name in read_only}
        for name in names
    ]
    return volumes, mounts


def _volume_name(claim: str) -> str:
    """A volume's name has at most 63 characters, and so has a claim's: a long one is told apart by its hash."""
    name = f"claim-{claim}"
    return name if len(name) <= 63 else f"{name[:54]}-{hashlib.sha256(claim.encode()).hexdigest()[:8]}"


def scratch_volumes() -> tuple[list[Manifest], list[Manifest]]:
    """(volumes, volumeMounts) for /tmp (HOME) and /dev/shm, the only writable places besides claims."""
    return (
        [{"name": "tmp", "emptyDir": {}}, {"name": "shm", "emptyDir": {"medium": "Memory"}}],
        [{"name": "tmp", "mountPath": "/tmp"}, {"name": "shm", "mountPath": "/dev/shm"}],
    )
