"""Perform a step: apply, patch, delete, each in order."""

from tunewright_operator.kube.errors import Forbidden, Invalid, KubeError
from tunewright_operator.kube.protocol import Kube
from tunewright_operator.plan import Step


async def execute(kube: Kube, step: Step) -> KubeError | None:
    """Returns the first answer that trying again does not change; such an answer belongs into a condition.

    Nothing is deleted after a refusal: what runs is worth more than what cannot be created. Conflict and Transient are
    raised, and the caller's loop tries again.
    """
    try:
        for manifest in step.apply:
            await kube.apply(manifest)
        for child, body in step.patch:
            await kube.patch(child, body)
    except (Forbidden, Invalid) as error:
        return error
    for child in step.delete:
        await kube.delete(child)
    return None
