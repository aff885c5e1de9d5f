"""Volumes of the node tier: folders of the machine as PersistentVolumes, and two tiny ones to be filled up.

Class `standard` (the default) has twelve volumes; when a claim goes, a pod of the probe image empties the folder and
Kubernetes offers the volume again (reclaim policy Recycle). Class `small` has two volumes of 16 MiB, each on a tmpfs of
that size, for tests of full disks.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from e2e.cluster.errors import ClusterError
from e2e.cluster.node import PROBE_IMAGE
from e2e.cluster.rest import Api

STANDARD_VOLUMES = 12
SMALL_VOLUMES = 2
SMALL_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True)
class Volume:
    """One PersistentVolume and its folder."""

    name: str
    storage_class: str
    capacity: str
    path: Path


def volumes(directory: Path) -> list[Volume]:
    """Every volume, with folders below `directory`."""
    standard = [(f"standard-{n:02}", "standard", "100Gi") for n in range(STANDARD_VOLUMES)]
    small = [(f"small-{n:02}", "small", "16Mi") for n in range(SMALL_VOLUMES)]
    return [Volume(name, kind, size, directory / name) for name, kind, size in (*standard, *small)]


def storage_class(name: str, *, default: bool) -> dict[str, Any]:
    """A class whose volumes exist already; a claim is bound when its pod is scheduled."""
    annotations = {"storageclass.kubernetes.io/is-default-class": "true"} if default else {}
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": name, "annotations": annotations},
        "provisioner": "kubernetes.io/no-provisioner",
        "volumeBindingMode": "WaitForFirstConsumer",
        "reclaimPolicy": "Delete",
    }


def persistent_volume(volume: Volume) -> dict[str, Any]:
    """The PersistentVolume of a folder. It may be shared by pods: there is one node."""
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": volume.name},
        "spec": {
            "storageClassName": volume.storage_class,
            "capacity": {"storage": volume.capacity},
            "accessModes": ["ReadWriteOnce", "ReadWriteMany", "ReadOnlyMany"],
            "persistentVolumeReclaimPolicy": "Recycle",
            "hostPath": {"path": str(volume.path), "type": "Directory"},
        },
    }


def recycler_pod() -> dict[str, Any]:
    """The pod that empties a volume; the controller-manager fills in the volume's path."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "recycle-volume", "namespace": "kube-system"},
        "spec": {
            "restartPolicy": "Never",
            "activeDeadlineSeconds": 60,
            "automountServiceAccountToken": False,
            "volumes": [{"name": "volume", "hostPath": {"path": "/filled-in"}}],
            "containers": [
                {
                    "name": "scrub",
                    "image": PROBE_IMAGE,
                    "imagePullPolicy": "Never",
                    "command": ["/probe", "scrub", "/volume"],
                    # Whoever wrote the files, they go.
                    "securityContext": {"runAsUser": 0},
                    "volumeMounts": [{"name": "volume", "mountPath": "/volume"}],
                }
            ],
        },
    }


def prepare_folders(directory: Path) -> None:
    """Make the folders, writable for every user, and mount the small ones."""
    for volume in volumes(directory):
        if not volume.path.exists():
            volume.path.mkdir(parents=True)
            volume.path.chmod(0o777)  # whatever the umask says: pods do not run as root
        if volume.storage_class == "small" and not volume.path.is_mount():
            options = f"size={SMALL_BYTES},mode=0777"
            command = ["mount", "-t", "tmpfs", "-o", options, "tunewright", str(volume.path)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise ClusterError(f"`{' '.join(command)}` failed, though it runs as root: {done.stderr.strip()}")


def apply_objects(api: Api, directory: Path) -> None:
    """Create the classes and the volumes; those in use stay as they are."""
    for name in ("standard", "small"):
        api.apply(f"/apis/storage.k8s.io/v1/storageclasses/{name}", storage_class(name, default=name == "standard"))
    for volume in volumes(directory):
        api.apply(f"/api/v1/persistentvolumes/{volume.name}", persistent_volume(volume))
