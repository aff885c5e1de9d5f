"""Perform a step: what must stop, then what shall be there, then what is no longer needed."""

from dataclasses import dataclass

from tunewright_operator.kube.errors import AlreadyExists, Forbidden, Invalid, KubeError, NameTaken
from tunewright_operator.kube.protocol import Kube, Manifest
from tunewright_operator.plan import Step


@dataclass(frozen=True)
class Refused:
    """An answer that trying again does not change; it belongs into a condition. `left` is what was not applied."""

    message: str
    reason: str = ""
    left: tuple[Manifest, ...] = ()


async def execute(kube: Kube, step: Step) -> Refused | None:
    """Returns the first refusal.

    After a refusal nothing is pruned: what runs is worth more than what cannot be created. What was withdrawn or
    suspended has stopped by then. Conflict and Transient are raised, and the caller's loop tries again.
    """
    failed: list[tuple[Manifest, KubeError]] = []
    for manifest in step.lead:
        try:
            await _write(kube, manifest)
        except KubeError as error:
            failed.append((manifest, error))
    for child in step.withdraw:
        await kube.delete(child)
    left = list(step.apply)
    try:
        for child, body in step.patch:
            await kube.patch(child, body)
        if failed:
            raise failed[0][1]
        while left:
            await _write(kube, left[0])
            left.pop(0)
    except (Forbidden, Invalid, NameTaken) as error:
        return Refused(error.message, error.reason, (*(manifest for manifest, _ in failed), *left))
    for child in step.delete:
        await kube.delete(child)
    return None


async def _write(kube: Kube, manifest: Manifest) -> None:
    """Apply to a child that we know by its uid; create any other.

    What is there although the watch has not shown it is our own child after a restart in between, or somebody else's
    object, which stays as it is. Raises NameTaken.
    """
    if "uid" in manifest["metadata"]:
        await kube.apply(manifest)
        return
    try:
        await kube.create(manifest)
    except AlreadyExists:
        there = await kube.look(manifest)
        if there is None:
            raise  # gone in between
        if not _same_owner(there, manifest):
            raise NameTaken(_describe(there, manifest)) from None
        labels = there["metadata"].get("labels") or {}
        if not manifest["metadata"]["labels"].items() <= labels.items():
            # Without its labels the watch never shows it.
            metadata = {**manifest["metadata"], "uid": there["metadata"]["uid"]}
            await kube.apply({**manifest, "metadata": metadata})


def _same_owner(there: Manifest, manifest: Manifest) -> bool:
    owners = {reference["uid"] for reference in there["metadata"].get("ownerReferences") or ()}
    return any(reference["uid"] in owners for reference in manifest["metadata"]["ownerReferences"])


def _describe(there: Manifest, manifest: Manifest) -> str:
    """Whose it is, and what to do. The child of a deleted object of the same name is on its way out."""
    (owner,) = manifest["metadata"]["ownerReferences"]
    name = f"{manifest['kind']} {manifest['metadata']['name']}"
    for reference in there["metadata"].get("ownerReferences") or ():
        if (reference["kind"], reference["name"]) == (owner["kind"], owner["name"]):
            return f"{name} is left from a deleted {owner['kind']} of the same name: it is removed, and this goes on"
        if reference.get("controller"):
            whose = f"belongs to {reference['kind']} {reference['name']}"
            break
    else:
        whose = "was not made by Tunewright"
    return (
        f"{name} exists already and {whose}: delete it, or create the {owner['kind']} under another name; this goes on "
        "as soon as the name is free"
    )
