"""From the indexes to `Children`: only what really belongs to this very object."""

from collections.abc import Iterable, Mapping
from typing import Any

from tunewright_api.names import LABEL_KIND, LABEL_NAME, LABEL_STAGE
from tunewright_operator.handlers.wakeups import Key
from tunewright_operator.reconcile.result import Children

Manifest = dict[str, Any]

# Index of the children -> attribute of Children.
INDEXES = {
    "jobs": "jobs",
    "pods": "pods",
    "services": "services",
    "configmaps": "config_maps",
    "networkpolicies": "network_policies",
    "deployments": "deployments",
    "poddisruptionbudgets": "disruption_budgets",
}
VERSIONS = "versions_by_namespace"


def owner_key(body: Mapping[str, Any]) -> Key | None:
    """Key of the object that the owner labels name."""
    labels = body["metadata"].get("labels") or {}
    kind, name = labels.get(LABEL_KIND), labels.get(LABEL_NAME)
    return (kind, body["metadata"]["namespace"], name) if kind and name else None


def version_keys(version: Mapping[str, Any]) -> tuple[Key, ...]:
    """The keys under which services look for this ModelVersion: its own name, and that of its model, for aliases."""
    metadata = version["metadata"]
    model = (version.get("spec") or {}).get("modelName", "")
    return ("version", metadata["namespace"], metadata["name"]), ("model", metadata["namespace"], model)


def wanted_versions(service: Mapping[str, Any]) -> frozenset[Key]:
    """Such keys of all ModelVersions that an InferenceService asks for, serves or moves to."""
    namespace, status = service["metadata"]["namespace"], service.get("status") or {}
    model = (service.get("spec") or {}).get("model") or {}
    names = [
        (model.get("versionRef") or {}).get("name"),
        *((status.get(role) or {}).get("version") for role in ("stable", "candidate")),
    ]
    alias = (model.get("alias") or {}).get("modelName")
    found: set[Key] = {("version", namespace, name) for name in names if name}
    return frozenset(found | ({("model", namespace, alias)} if alias else set()))


def collect_children(uid: str, key: Key, indexes: Mapping[str, Mapping[Any, Iterable[Manifest]]]) -> Children:
    """Children of the object with this uid.

    Labels find them, owner references decide: the children of a deleted object of the same name are somebody else's."""
    found = {index: tuple(indexes[index].get(key, ())) for index in INDEXES}
    mine = {
        index: tuple(child for child in children if uid in _owner_uids(child))
        for index, children in found.items()
        if index != "pods"
    }
    mine["pods"] = _pods_of(found["pods"], uid, mine["jobs"], mine["deployments"])
    orphans = tuple(
        pod for pod in found["pods"] if pod not in mine["pods"] and LABEL_STAGE in (pod["metadata"].get("labels") or {})
    )
    versions = tuple(indexes[VERSIONS].get(key[1], ())) if key[0] == "InferenceService" else ()
    by_kind: dict[str, Any] = {attribute: mine[index] for index, attribute in INDEXES.items()}
    return Children(orphans=orphans, versions=versions, **by_kind)


def _pods_of(
    pods: Iterable[Manifest], uid: str, jobs: Iterable[Manifest], deployments: Iterable[Manifest]
) -> tuple[Manifest, ...]:
    """A pod belongs to one of the Jobs by uid, or to one of the Deployments by its ReplicaSet's name."""
    owners = {uid} | {job["metadata"]["uid"] for job in jobs}
    prefixes = tuple(f"{deployment['metadata']['name']}-" for deployment in deployments)
    return tuple(
        pod
        for pod in pods
        if owners & _owner_uids(pod)
        or any(
            reference["kind"] == "ReplicaSet" and reference["name"].startswith(prefixes)
            for reference in pod["metadata"].get("ownerReferences") or ()
        )
    )


def _owner_uids(child: Manifest) -> set[str]:
    return {reference["uid"] for reference in child["metadata"].get("ownerReferences") or ()}
