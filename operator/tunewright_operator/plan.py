"""(desired, existing) -> what to apply and what to delete.

A child carries the hash of the manifest it was last applied from. Equal hash means that nothing is written, so a
settled object costs the apiserver no write. Where requests go must not depend on that: of what leads them, the stored
spec is compared, too, and an edit by somebody else is undone. What others add to a spec, as defaults, stays.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from tunewright_api.names import ANNOTATION_SPEC_HASH

Manifest = dict[str, Any]

# Read anew each turn, or watched, and stored as we wrote them: no amount that the apiserver would write otherwise.
_LEADING = {
    "Service",
    "VirtualService",
    "DestinationRule",
    "HTTPRoute",
    "PeerAuthentication",
    "AuthorizationPolicy",
}
# One more entry here selects less.
_WHOLE = {"selector", "labels"}


@dataclass(frozen=True)
class Step:
    """One move towards the desired state. What must stop goes first, whatever the apiserver says to the rest.

    `lead` is applied first: each of them leads requests away from what shall get none, and none waits for another.
    `withdraw` is deleted then. `patch` is for a child whose other fields are immutable: (child, merge patch). Then
    `apply`, in order. `delete` is what is merely no longer needed, and goes last.
    """

    apply: tuple[Manifest, ...] = ()
    delete: tuple[Manifest, ...] = ()
    patch: tuple[tuple[Manifest, Manifest], ...] = ()
    withdraw: tuple[Manifest, ...] = ()
    lead: tuple[Manifest, ...] = ()


def key(manifest: Manifest) -> tuple[str, str]:
    """Identity of a child inside its owner's namespace."""
    return manifest["kind"], manifest["metadata"]["name"]


def spec_hash(manifest: Manifest) -> str:
    """Short stable hash of a manifest without its own hash annotation."""
    text = json.dumps(manifest, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def with_hash(manifest: Manifest) -> Manifest:
    """The manifest, annotated with its hash."""
    metadata = manifest["metadata"]
    annotations = {**metadata.get("annotations", {}), ANNOTATION_SPEC_HASH: spec_hash(manifest)}
    return {**manifest, "metadata": {**metadata, "annotations": annotations}}


def plan(
    desired: Sequence[Manifest],
    existing: Iterable[Manifest],
    *,
    prune: Iterable[Manifest] = (),
    withdraw: Iterable[Manifest] = (),
) -> Step:
    """Apply what is absent, and under its uid what was applied from another manifest; delete `withdraw` first and
    `prune` (children that are no longer wanted) last.

    A child that is being deleted is left alone: it is applied again once it is gone.
    """
    by_key = {key(child): child for child in existing}
    stale = []
    for manifest in map(with_hash, desired):
        child = by_key.get(key(manifest))
        if child is None:
            stale.append(manifest)
            continue
        if child["metadata"].get("deletionTimestamp"):
            continue
        if not _is_current(child, manifest):
            stale.append({**manifest, "metadata": {**manifest["metadata"], "uid": child["metadata"]["uid"]}})
    return Step(apply=tuple(stale), delete=_not_yet_deleted(prune), withdraw=_not_yet_deleted(withdraw))


def _is_current(child: Manifest, manifest: Manifest) -> bool:
    annotations = child["metadata"].get("annotations") or {}
    if annotations.get(ANNOTATION_SPEC_HASH) != manifest["metadata"]["annotations"][ANNOTATION_SPEC_HASH]:
        return False
    return manifest["kind"] not in _LEADING or _contains(child.get("spec"), manifest["spec"])


def _contains(stored: Any, wanted: Any) -> bool:
    """Whether every value that is wanted is stored. Lists are compared as wholes: each place has a meaning."""
    if isinstance(wanted, dict) and isinstance(stored, dict):
        return all(
            stored.get(name) == value if name in _WHOLE else name in stored and _contains(stored[name], value)
            for name, value in wanted.items()
        )
    if isinstance(wanted, list) and isinstance(stored, list):
        return len(stored) == len(wanted) and all(map(_contains, stored, wanted))
    return bool(stored == wanted)


def _not_yet_deleted(children: Iterable[Manifest]) -> tuple[Manifest, ...]:
    return tuple(child for child in children if not child["metadata"].get("deletionTimestamp"))
