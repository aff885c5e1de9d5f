"""The pods of an InferenceService: a Deployment and a ConfigMap per revision, and one PodDisruptionBudget.

A revision is what makes the answers. How many pods it has and how requests reach them is not part of it, so scaling
and routing never start a rollout.
"""

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from tunewright_api.inferenceservice import InferenceServiceSpec
from tunewright_api.modelversion import ModelVersionSpec
from tunewright_api.names import (
    ANNOTATION_SPEC_HASH,
    CONFIG_DIR,
    CONFIG_FILE,
    LABEL_REVISION,
    LABEL_VERSION,
    PORT_SERVER,
    PORT_SERVER_HEALTH,
)
from tunewright_api.server_config import ServerConfig, ServerIdentity, ServerModel
from tunewright_api.uris import parse_pvc
from tunewright_operator.manifests.common import (
    child_metadata,
    claim_volumes,
    owner_labels,
    placement,
    restricted_container_security,
    restricted_pod_security,
    scrape_annotations,
    scratch_volumes,
)
from tunewright_operator.manifests.images import Images
from tunewright_operator.manifests.naming import revision_name, service_host
from tunewright_operator.manifests.resources import gpus_per_node

Manifest = dict[str, Any]

CONTAINER = "server"
SERVICE_PORT = 80

# Endpoints are withdrawn while the server still takes requests; then it drains, then it exits.
PRE_STOP_SECONDS = 5
_EXIT_SECONDS = 10
# Proxies keep idle connections, Envoy for an hour. One that the server closes first may get a request in that moment,
# which fails although nothing is wrong; so the proxy has to be the one that closes.
_KEEP_ALIVE_SECONDS = 3900
# Istio's sidecar ends five seconds after SIGTERM, streams or not, unless it is told to wait for them. (One that is an
# init container of its pod ends after the server in any case.)
_SIDECAR = {"proxyMetadata": {"EXIT_ON_ZERO_ACTIVE_CONNECTIONS": "true"}}
# The server's own /live tells loading from being stuck and has its own limits; this is for pods that never come so far.
_PROGRESS_SECONDS = 3900

# The fields of the spec that make a revision. What is left out may change while it runs.
_MAKES_A_REVISION = {"engine", "sampling", "resources", "scheduling", "drain_seconds"}


@dataclass(frozen=True)
class Revision:
    """One revision of a service: what it serves and by which name it is known."""

    version: str
    name: str
    fingerprint: str = ""  # of the same without the image, which an upgrade of the operator changes


def service_url(namespace: str, name: str) -> str:
    """OpenAI-compatible base URL inside the cluster."""
    return f"http://{service_host(namespace, name)}/v1"


def desired_replicas(spec: InferenceServiceSpec) -> int:
    """Pods asked for."""
    return 1 if spec.replicas is None else spec.replicas


def build_revision(version: str, model: ModelVersionSpec, spec: InferenceServiceSpec, images: Images) -> Revision:
    """The revision of this spec with this version; named by a hash of what makes it."""
    parts = {
        "version": version,
        "artifact": model.artifact.to_dict(),
        "spec": spec.model_dump(mode="json", by_alias=True, exclude_none=True, include=_MAKES_A_REVISION),
        "image": images.server_image,
    }
    asked_for = {key: value for key, value in parts.items() if key != "image"}
    return Revision(version, _hash(parts), _hash(asked_for))


def _hash(parts: Manifest) -> str:
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def build_server(  # noqa: PLR0917 - the spec, what it refers to, and what was decided
    owner: Manifest,
    spec: InferenceServiceSpec,
    model: ModelVersionSpec,
    revision: Revision,
    images: Images,
    replicas: int,
) -> tuple[Manifest, ...]:
    """ConfigMap and Deployment of one revision, in the order in which they are applied."""
    config = build_server_config(owner, spec, model, revision)
    template = {"metadata": _pod_metadata(owner, revision), "spec": _pod(owner, spec, model, revision, images)}
    return _config_map(owner, revision, config), _deployment(owner, replicas, revision, template)


def build_server_config(
    owner: Manifest, spec: InferenceServiceSpec, model: ModelVersionSpec, revision: Revision
) -> ServerConfig:
    """What the server image reads. Clients name the service as their model, so a rollout changes no request."""
    namespace, service = owner["metadata"]["namespace"], owner["metadata"]["name"]
    return ServerConfig(
        model=ServerModel(
            artifact=str(parse_pvc(model.artifact.uri).mount),
            digest=model.artifact.digest,
            served_name=service,
        ),
        identity=ServerIdentity(namespace=namespace, service=service, version=revision.version, revision=revision.name),
        engine=spec.engine,
        sampling=spec.sampling,
        gpus=gpus_per_node(spec.resources),
        drain_seconds=spec.drain_seconds,
    )


def build_disruption_budget(owner: Manifest) -> Manifest:
    """A node is drained one pod of the service at a time, whichever revision it has.

    Not `minAvailable`: it would keep the node of a single pod from ever being drained. And a pod that is not ready
    serves nobody, so it never holds a node.
    """
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": child_metadata(owner, owner["metadata"]["name"]),
        "spec": {
            "selector": {"matchLabels": owner_labels(owner)},
            "maxUnavailable": 1,
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
        },
    }


def scale_patch(deployment: Manifest, replicas: int) -> Manifest | None:
    """The merge patch that gives a Deployment this many pods without its manifest; None where it has them.

    The hash of the manifest goes with it: the Deployment no longer is what the manifest said, and must be written
    again if it is the one that the spec asks for once more.
    """
    if deployment["spec"].get("replicas", 1) == replicas:
        return None
    return {"metadata": {"annotations": {ANNOTATION_SPEC_HASH: None}}, "spec": {"replicas": replicas}}


def revision_selector(owner: Manifest, revision: str) -> dict[str, str]:
    """Labels of the pods of one revision."""
    return owner_labels(owner) | {LABEL_REVISION: revision}


def _child_name(owner: Manifest, revision: Revision) -> str:
    return revision_name(owner["metadata"]["name"], revision.name)


def _labels(revision: Revision) -> dict[str, str]:
    return {LABEL_REVISION: revision.name, LABEL_VERSION: revision.version}


def _config_map(owner: Manifest, revision: Revision, config: ServerConfig) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": child_metadata(owner, _child_name(owner, revision), _labels(revision)),
        "data": {CONFIG_FILE: json.dumps(config.to_dict(), indent=2)},
    }


def _deployment(owner: Manifest, replicas: int, revision: Revision, template: Manifest) -> Manifest:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": child_metadata(owner, _child_name(owner, revision), _labels(revision)),
        "spec": {
            "replicas": replicas,
            "progressDeadlineSeconds": _PROGRESS_SECONDS,
            "revisionHistoryLimit": 1,
            "selector": {"matchLabels": revision_selector(owner, revision.name)},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
            "template": template,
        },
    }


def _pod_metadata(owner: Manifest, revision: Revision) -> Manifest:
    return {
        "labels": owner_labels(owner) | _labels(revision),
        "annotations": {
            **scrape_annotations(PORT_SERVER_HEALTH),
            "proxy.istio.io/config": json.dumps(_SIDECAR),
        },
    }


def _pod(
    owner: Manifest, spec: InferenceServiceSpec, model: ModelVersionSpec, revision: Revision, images: Images
) -> Manifest:
    claim = parse_pvc(model.artifact.uri).claim
    volumes, mounts = claim_volumes([claim], read_only=frozenset({claim}))
    scratch, scratch_mounts = scratch_volumes()
    mounts = [*mounts, *scratch_mounts, {"name": "config", "mountPath": CONFIG_DIR, "readOnly": True}]
    return {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": restricted_pod_security(),
        "terminationGracePeriodSeconds": PRE_STOP_SECONDS + spec.drain_seconds + _EXIT_SECONDS,
        **placement(spec.scheduling),
        "topologySpreadConstraints": [
            _spread(owner, revision, over) for over in ("kubernetes.io/hostname", "topology.kubernetes.io/zone")
        ],
        "containers": [_container(spec, mounts, images)],
        "volumes": [*volumes, *scratch, {"name": "config", "configMap": {"name": _child_name(owner, revision)}}],
    }


def _spread(owner: Manifest, revision: Revision, over: str) -> Manifest:
    """Preferred, not required: a model on one node is better than none. Each revision by itself, so that the pods of
    the one that goes do not push those of the one that comes."""
    return {
        "maxSkew": 1,
        "topologyKey": over,
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": revision_selector(owner, revision.name)},
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
            {"name": "VLLM_HTTP_TIMEOUT_KEEP_ALIVE", "value": str(_KEEP_ALIVE_SECONDS)},
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
