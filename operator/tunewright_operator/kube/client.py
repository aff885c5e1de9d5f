"""The Kube protocol over kubernetes.aio: plain dicts in, plain dicts out, errors as types.

An object is created by POST, so that nobody else's is ever taken over, and changed by server-side apply; both with
one field manager.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

import aiohttp
from kubernetes.aio.client import ApiClient

from tunewright_api.names import API_VERSION, FIELD_MANAGER
from tunewright_operator.kube.connection import load_configuration
from tunewright_operator.kube.errors import AlreadyExists, Conflict, Forbidden, Invalid, KubeError, NotFound, Transient
from tunewright_operator.kube.resources import collection_path, object_path, path_of

Manifest = dict[str, Any]

TIMEOUT_SECONDS = 30
USER_AGENT = "tunewright-operator"

APPLY = "application/apply-patch+yaml"
MERGE = "application/merge-patch+json"
_JSON = "application/json"
_OWNED = {"fieldManager": FIELD_MANAGER}
_BY_STATUS: dict[int, type[KubeError]] = {
    400: Invalid,
    401: Transient,  # a token that has just been rotated
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    422: Invalid,
    429: Transient,
}


class KubeClient:
    """One connection pool to one apiserver."""

    def __init__(self, api: ApiClient) -> None:
        self._api = api
        api.user_agent = USER_AGENT

    @classmethod
    async def connect(cls) -> "KubeClient":
        """A client for the cluster that `load_configuration` finds."""
        return cls(ApiClient(await load_configuration()))

    async def close(self) -> None:
        """Close the connections."""
        await self._api.close()

    async def get(self, api_version: str, kind: str, namespace: str, name: str) -> Manifest:
        """Read one object; raises NotFound."""
        return await self._request("GET", object_path(api_version, kind, namespace, name))

    async def look(self, manifest: Manifest) -> Manifest | None:
        """The stored object of this kind and name, by a list: the role needs no `get` on children."""
        query = {"fieldSelector": f"metadata.name={manifest['metadata']['name']}"}
        items: list[Manifest] = (await self._request("GET", _collection(manifest), query=query))["items"]
        return next(iter(items), None)

    async def list_by_labels(
        self, api_version: str, kind: str, namespace: str, labels: Mapping[str, str]
    ) -> Sequence[Manifest]:
        """Stored objects of a kind that carry these labels; raises NotFound where the apiserver does not know it."""
        query = {"labelSelector": ",".join(f"{key}={value}" for key, value in sorted(labels.items()))}
        answer = await self._request("GET", collection_path(api_version, kind, namespace), query=query)
        # A list's items leave out what is the same for all of them.
        return [{"apiVersion": api_version, "kind": kind, **item} for item in answer["items"]]

    async def create(self, manifest: Manifest) -> Manifest:
        """Create what is not there; raises AlreadyExists."""
        return await self._request("POST", _collection(manifest), manifest, query=_OWNED)

    async def apply(self, manifest: Manifest) -> Manifest:
        """Server-side apply; fields of ours that somebody else changed are taken back."""
        await self._own_by_apply(manifest)
        return await self._request("PATCH", path_of(manifest), manifest, APPLY, _OWNED | {"force": "true"})

    async def patch(self, manifest: Manifest, body: Manifest) -> Manifest:
        """Merge patch of an object that must still be the one seen (same uid)."""
        guarded = {**body, "metadata": {**body.get("metadata", {}), "uid": manifest["metadata"]["uid"]}}
        return await self._request("PATCH", path_of(manifest), guarded, MERGE, _OWNED)

    async def delete(self, manifest: Manifest) -> None:
        """Delete in the background, only the very object seen; one that is gone or was replaced is no error."""
        options: Manifest = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}
        if uid := manifest["metadata"].get("uid"):
            options["preconditions"] = {"uid": uid}
        try:
            await self._request("DELETE", path_of(manifest), options)
        except (NotFound, Conflict):
            return

    async def patch_status(self, manifest: Manifest, status: Manifest) -> Manifest:
        """Apply the whole status; what is left out of it is removed."""
        metadata = manifest["metadata"]
        body = {
            "apiVersion": manifest["apiVersion"],
            "kind": manifest["kind"],
            "metadata": {"name": metadata["name"], "namespace": metadata["namespace"], "uid": metadata["uid"]},
            "status": status,
        }
        return await self._request("PATCH", path_of(manifest, "status"), body, APPLY, _OWNED | {"force": "true"})

    async def served_kinds(self) -> frozenset[str]:
        """Kinds of our group that the apiserver knows; empty before the CRDs are installed."""
        try:
            answer = await self._request("GET", f"/apis/{API_VERSION}")
        except NotFound:
            return frozenset()
        return frozenset(resource["kind"] for resource in answer["resources"])

    async def _own_by_apply(self, manifest: Manifest) -> None:
        """What a create wrote counts as ours by update: an apply without a field would leave it there for ever.

        Raises Conflict where the object is no longer the one that the manifest is for.
        """
        there = await self.look(manifest)
        if there is None or there["metadata"]["uid"] != manifest["metadata"]["uid"]:
            raise Conflict(f"{manifest['kind']} {manifest['metadata']['name']} was replaced by another one", 409)
        entries = there["metadata"].get("managedFields") or []
        if _is_ours(entries, "Apply") or not _is_ours(entries, "Update"):
            return
        metadata = {
            "resourceVersion": there["metadata"]["resourceVersion"],
            "managedFields": [e | {"operation": "Apply"} if _is_ours([e], "Update") else e for e in entries],
        }
        await self._request("PATCH", path_of(manifest), {"metadata": metadata}, MERGE, _OWNED)

    async def _request(
        self,
        method: str,
        path: str,
        body: Manifest | None = None,
        content_type: str = _JSON,
        query: dict[str, str] | None = None,
    ) -> Manifest:
        headers = {"Accept": _JSON, "Content-Type": content_type}
        try:
            request = await self._api.param_serialize(
                method,
                f"{path}?{urlencode(query)}" if query else path,
                header_params=headers,
                body=body,
                auth_settings=["BearerToken"],
            )
            response = await self._api.call_api(*request, _request_timeout=aiohttp.ClientTimeout(TIMEOUT_SECONDS))
            text = (await response.read()).decode()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Transient(f"{method} {path}: {error or type(error).__name__}") from error
        if response.status >= 300:
            raise to_error(response.status, text)
        answer: Manifest = json.loads(text)
        return answer


def _collection(manifest: Manifest) -> str:
    return collection_path(manifest["apiVersion"], manifest["kind"], manifest["metadata"]["namespace"])


def _is_ours(entries: list[Manifest], operation: str) -> bool:
    """Whether one of these managedFields says that we wrote the object itself in this way."""
    return any(
        e.get("manager") == FIELD_MANAGER and e.get("operation") == operation and not e.get("subresource")
        for e in entries
    )


def to_error(status: int, text: str) -> KubeError:
    """The typed error of an answer that is no success."""
    try:
        answer = json.loads(text)
        message, reason = str(answer.get("message") or text), answer.get("reason")
    except (ValueError, AttributeError):
        message, reason = text, None
    kind = _BY_STATUS.get(status, Transient if status >= 500 else KubeError)
    if kind is Conflict and reason == "AlreadyExists":
        kind = AlreadyExists
    return kind(message.strip()[:2048] or f"HTTP {status}", status)
