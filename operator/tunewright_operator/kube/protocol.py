"""The few things the operator asks of the apiserver; reconcilers see only this."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

Manifest = dict[str, Any]


class Kube(Protocol):
    """Async access to objects as plain dicts. Every method raises the types of `kube.errors`."""

    async def get(self, api_version: str, kind: str, namespace: str, name: str) -> Manifest:
        """Read one object; raises NotFound."""

    async def look(self, manifest: Manifest) -> Manifest | None:
        """The stored object of the manifest's kind and name, or None."""

    async def list_by_labels(
        self, api_version: str, kind: str, namespace: str, labels: Mapping[str, str]
    ) -> Sequence[Manifest]:
        """Stored objects of a kind that carry these labels; raises NotFound where the apiserver does not know it."""

    async def create(self, manifest: Manifest) -> Manifest:
        """Create what is not there, with our field manager; raises AlreadyExists."""

    async def apply(self, manifest: Manifest) -> Manifest:
        """Server-side apply to the very object whose uid the manifest carries; returns the object as stored."""

    async def patch(self, manifest: Manifest, body: Manifest) -> Manifest:
        """Merge patch of an object whose other fields are immutable (suspend of a Job), guarded by its uid."""

    async def delete(self, manifest: Manifest) -> None:
        """Delete in the background with the manifest's uid as precondition; an absent object is no error."""

    async def patch_status(self, manifest: Manifest, status: Manifest) -> Manifest:
        """Replace the status of one of our objects (apply of the status subresource with our field manager)."""
