"""Where each kind lives in the REST API: only kinds that the operator reads or writes."""

from typing import Any

from tunewright_api.names import API_VERSION

Manifest = dict[str, Any]

PLURALS: dict[tuple[str, str], str] = {
    ("v1", "ConfigMap"): "configmaps",
    ("v1", "PersistentVolumeClaim"): "persistentvolumeclaims",
    ("v1", "Pod"): "pods",
    ("v1", "Secret"): "secrets",
    ("v1", "Service"): "services",
    ("apps/v1", "Deployment"): "deployments",
    ("batch/v1", "Job"): "jobs",
    ("networking.k8s.io/v1", "NetworkPolicy"): "networkpolicies",
    ("policy/v1", "PodDisruptionBudget"): "poddisruptionbudgets",
    ("networking.istio.io/v1", "VirtualService"): "virtualservices",
    ("networking.istio.io/v1", "DestinationRule"): "destinationrules",
    ("security.istio.io/v1", "PeerAuthentication"): "peerauthentications",
    ("security.istio.io/v1", "AuthorizationPolicy"): "authorizationpolicies",
    ("gateway.networking.k8s.io/v1", "HTTPRoute"): "httproutes",
    (API_VERSION, "FineTuneJob"): "finetunejobs",
    (API_VERSION, "ModelVersion"): "modelversions",
    (API_VERSION, "InferenceService"): "inferenceservices",
}


def collection_path(api_version: str, kind: str, namespace: str) -> str:
    """URL path of all objects of a kind in a namespace."""
    root = "/api/v1" if api_version == "v1" else f"/apis/{api_version}"
    return f"{root}/namespaces/{namespace}/{PLURALS[api_version, kind]}"


def object_path(api_version: str, kind: str, namespace: str, name: str, subresource: str = "") -> str:
    """URL path of one object."""
    path = f"{collection_path(api_version, kind, namespace)}/{name}"
    return f"{path}/{subresource}" if subresource else path


def path_of(manifest: Manifest, subresource: str = "") -> str:
    """URL path of the object that a manifest describes."""
    metadata = manifest["metadata"]
    return object_path(manifest["apiVersion"], manifest["kind"], metadata["namespace"], metadata["name"], subresource)
