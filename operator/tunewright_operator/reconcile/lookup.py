"""Reads of objects that are no children: absent is an answer, not an error."""

from tunewright_api.names import API_VERSION
from tunewright_operator.kube.errors import NotFound
from tunewright_operator.kube.protocol import Kube, Manifest


async def find(kube: Kube, api_version: str, kind: str, namespace: str, name: str) -> Manifest | None:
    """The object, or None."""
    try:
        return await kube.get(api_version, kind, namespace, name)
    except NotFound:
        return None


async def claim_exists(kube: Kube, namespace: str, name: str) -> bool:
    """Whether the PersistentVolumeClaim exists."""
    return await find(kube, "v1", "PersistentVolumeClaim", namespace, name) is not None


async def find_versions(kube: Kube, namespace: str, names: set[str]) -> dict[str, Manifest | None]:
    """ModelVersions by name; None for one that does not exist."""
    return {name: await find(kube, API_VERSION, "ModelVersion", namespace, name) for name in sorted(names)}
