"""Children of an InferenceService: a Deployment and a ConfigMap per revision, and one Service in front.

A revision is what makes the answers: version, engine, resources, placement and image. The number of replicas is not
part of it, so scaling never starts a rollout.
"""

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from tunewright_api.inferenceservice import InferenceServiceSpec
from tunewright_api.modelversion import ModelVersionSpec
from tunewright_api.names import (
    CONFIG_DIR,
    CONFIG_FILE,
    LABEL_REVISION,
    LABEL_VERSION,
    PORT_SERVER,
    PORT_SERVER_HEALTH,
)
from tunewright_api.server_config import ServerConfig, ServerModel
from tunewright_api.uris import parse_pvc
from tunewright_operator.manifests.common import (
    child_metadata,
    claim_volumes,
    owner_labels,
    placement,
    restricted_container_security,
    restricted_pod_security,
    scratch_volumes,
)
from tunewright_operator.manifests.images import Images
from tunewright_operator.manifests.resources import gpus_per_node

Manifest = dict[str, Any]

CONTAINER = "server"
SERVICE_PORT = 80

# Endpoints are withdrawn while the server still takes requests; then it drains, then it exits.
PRE_STOP_SECONDS = 5
_EXIT_SECONDS = 10
# The server's own /live tells loading from being stuck and has its own limits; this is for pods that never come so far.
_PROGRESS_SECONDS = 3900


@dataclass(frozen=True)
class Revision:
    """One revision of a service: what it serves and by which name it is known."""

    version: str
    name: str


def service_url(namespace: str, name: str) -> str:
    """OpenAI-compatible base URL inside the cluster."""
    return f"http://{name}.{namespace}.svc.cluster.local/v1"


def desired_replicas(spec: InferenceServiceSpec) -> int:
    """Pods asked for."""
    return 1 if spec.replicas is None else spec.replicas


def build_revision(version: str, model: ModelVersionSpec, spec: InferenceServiceSpec, images: Images) -> Revision:
    """The revision of this spec with this version; named by a hash of what makes it."""
    parts = {
        "version": version,
        "artifact": model.artifact.to_dict(),
        "spec": spec.model_copy(update={"replicas": None}).to_dict(),
        "image": images.server_image,
    }
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    return Revision(version, hashlib.sha256(text.encode()).hexdigest()[:8])


def build_server(
    owner: Manifest, spec: InferenceServiceSpec, model: ModelVersionSpec, revision: Revision, images: Images
) -> tuple[Manifest, ...]:
    """ConfigMap and Deployment of one revision, in the order in which they are applied."""
    config = build_server_config(owner["metadata"]["name"], spec, model)
    pod = _pod(_child_name(owner, revision), spec, model, config, images)
    return _config_map(owner, revision, config), _deployment(owner, desired_replicas(spec), revision, pod)


def build_server_config(service: str, spec: InferenceServiceSpec, model: ModelVersionSpec) -> ServerConfig:
    """What the server image reads. Clients name the service as their model, so a rollout changes no request."""
    return ServerConfig(
        model=ServerModel(
            artifact=str(parse_pvc(model.artifact.uri).mount),
            digest=model.artifact.digest,
            served_name=service,
        ),
        engine=spec.engine,
        gpus=gpus_per_node(spec.resources),
    )


def build_service(owner: Manifest, revision: str) -> Manifest:
    """The Service: its name never changes, its selector is the revision that answers."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": child_metadata(owner, owner["metadata"]["name"]),
        "spec": {
            "selector": _selector(owner, revision),
            "ports": [{"name": "http", "port": SERVICE_PORT, "targetPort": "http", "protocol": "TCP"}],
        },
    }


def _selector(owner: Manifest, revision: str) -> dict[str, str]:
    return owner_labels(owner) | {LABEL_REVISION: revision}


def _child_name(owner: Manifest, revision: Revision) -> str:
    return f"{owner['metadata']['name']}-{revision.name}"


def _labels(revision: Revision) -> dict[str, str]:
    return {LABEL_REVISION: revision.name, LABEL_VERSION: revision.version}


def _config_map(owner: Manifest, revision: Revision, config: ServerConfig) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": child_metadata(owner, _child_name(owner, revision), _labels(revision)),
        "data": {CONFIG_FILE: json.dumps(config.to_dict(), indent=2)},
    }


def _deployment(owner: Manifest, replicas: int, revision: Revision, pod: Manifest) -> Manifest:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": child_metadata(owner, _child_name(owner, revision), _labels(revision)),
        "spec": {
            "replicas": replicas,
            "progressDeadlineSeconds": _PROGRESS_SECONDS,
            "revisionHistoryLimit": 1,
            "selector": {"matchLabels": _selector(owner, revision.name)},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
            "template": {"metadata": {"labels": owner_labels(owner) | _labels(revision)}, "spec": pod},
        },
    }


def _pod(
    config_map: str, spec: InferenceServiceSpec, model: ModelVersionSpec, config: ServerConfig, images: Images
) -> Manifest:
    claim = parse_pvc(model.artifact.uri).claim
    volumes, mounts = claim_volumes([claim], read_only=frozenset({claim}))
    scratch, scratch_mounts = scratch_volumes()
    mounts = [*mounts, *scratch_mounts, {"name": "config", "mountPath": CONFIG_DIR, "readOnly": True}]
    return {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": restricted_pod_security(),
        "terminationGracePeriodSeconds": PRE_STOP_SECONDS + config.drain_seconds + _EXIT_SECONDS,
        **placement(spec.scheduling),
        "containers": [_container(spec, mounts, images)],
        "volumes": [*volumes, *scratch, {"name": "config", "configMap": {"name": config_map}}],
    }


def _container(spec: InferenceServiceSpec, mounts: list[Manifest], images: Images) -> Manifest:
    return {
        "name": CONTAINER,
        "image": images.server_image,
        "imagePullPolicy": images.image_pull_policy,
        "command": ["tunewright-server", "--config", f"{CONFIG_DIR}/{CONFIG_FILE}"],
        "env": [
            {"name": "HOME", "value": "/tmp"},
            {"name": "HF_HUB_OFFLINE", "value": "1"},
            {"name": "VLLM_NO_USAGE_STATS", "value": "1"},
        ],
        "ports": [
            {"name": "http", "containerPort": PORT_SERVER, "protocol": "TCP"},
            {"name": "health", "containerPort": PORT_SERVER_HEALTH, "protocol": "TCP"},
        ],
        # Until the health port listens; from then on /live answers for loading and serving alike.
        "startupProbe": _probe("/live", every=2, failures=90),
        "readinessProbe": _probe("/ready", every=2, failures=2),
        "livenessProbe": _probe("/live", every=10, failures=3),
        "lifecycle": {"preStop": {"sleep": {"seconds": PRE_STOP_SECONDS}}},
        **_resources(spec),
        "securityContext": restricted_container_security(),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": mounts,
    }


def _resources(spec: InferenceServiceSpec) -> Manifest:
    """Requests equal limits: a server that is promised less than it takes is the first to be evicted."""
    if not spec.resources:
        return {}
    return {"resources": {"requests": dict(spec.resources), "limits": dict(spec.resources)}}


def _probe(path: str, *, every: int, failures: int) -> Manifest:
    return {
        "httpGet": {"path": path, "port": "health", "scheme": "HTTP"},
        "periodSeconds": every,
        "timeoutSeconds": 5,
        "failureThreshold": failures,
    }
