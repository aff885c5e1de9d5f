"""Children of a ModelVersion: a Job that recomputes the digest of the artifact, and its configuration."""

import json
from typing import Any

from tunewright_api.modelversion import ModelVersionSpec
from tunewright_api.names import CONFIG_DIR, CONFIG_FILE, LABEL_STAGE, Stage
from tunewright_api.trainer_config import VerifyConfig
from tunewright_api.uris import parse_pvc
from tunewright_operator.manifests.common import (
    child_metadata,
    claim_volumes,
    owner_labels,
    pod_failure_policy,
    restricted_container_security,
    restricted_pod_security,
    scratch_volumes,
)
from tunewright_operator.manifests.images import Images
from tunewright_operator.manifests.naming import child_name

Manifest = dict[str, Any]

CONTAINER = "verify"
_STAGE = {LABEL_STAGE: Stage.VERIFY.value}


def verify_name(version: str) -> str:
    """Name of the Job and of its ConfigMap."""
    return child_name(version, Stage.VERIFY.value)


def build_verify_config(owner: Manifest, spec: ModelVersionSpec) -> Manifest:
    """ConfigMap with the trainer image's VerifyConfig."""
    config = VerifyConfig(artifact=str(parse_pvc(spec.artifact.uri).mount), digest=spec.artifact.digest)
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": child_metadata(owner, verify_name(owner["metadata"]["name"]), _STAGE),
        "data": {CONFIG_FILE: json.dumps(config.to_dict(), indent=2)},
    }


def build_verify_job(owner: Manifest, spec: ModelVersionSpec, images: Images) -> Manifest:
    """Job that reads every file of the artifact, read-only and without access to the API."""
    name = verify_name(owner["metadata"]["name"])
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": child_metadata(owner, name, _STAGE),
        "spec": {
            "backoffLimit": 2,
            "podFailurePolicy": pod_failure_policy(CONTAINER),
            "template": {
                "metadata": {"labels": owner_labels(owner) | _STAGE},
                "spec": _pod(name, spec, images),
            },
        },
    }


def _pod(name: str, spec: ModelVersionSpec, images: Images) -> Manifest:
    claim = parse_pvc(spec.artifact.uri).claim
    volumes, mounts = claim_volumes([claim], read_only=frozenset({claim}))
    scratch, scratch_mounts = scratch_volumes()
    return {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": restricted_pod_security(),
        "containers": [
            {
                "name": CONTAINER,
                "image": images.trainer_image,
                "imagePullPolicy": images.image_pull_policy,
                "command": ["tunewright-trainer", "verify", "--config", f"{CONFIG_DIR}/{CONFIG_FILE}"],
                "env": [{"name": "HOME", "value": "/tmp"}],
                "resources": {
                    "requests": {"cpu": "100m", "memory": "256Mi"},
                    "limits": {"memory": "2Gi"},
                },
                "securityContext": restricted_container_security(),
                "terminationMessagePolicy": "FallbackToLogsOnError",
                "volumeMounts": [
                    *mounts,
                    *scratch_mounts,
                    {"name": "config", "mountPath": CONFIG_DIR, "readOnly": True},
                ],
            }
        ],
        "volumes": [*volumes, *scratch, {"name": "config", "configMap": {"name": name}}],
    }
