"""Perform a step: what must stop, then what shall be there, then what is no longer needed."""

from tunewright_operator.kube.errors import Forbidden, Invalid, KubeError
from tunewright_operator.kube.protocol import Kube
from tunewright_operator.plan import Step


async def execute(kube: Kube, step: Step) -> KubeError | None:
    """Returns the first answer that trying again does not change; such an answer belongs into a condition.

    After a refusal nothing is pruned: what runs is worth more than what cannot be created. What was withdrawn or
    suspended has stopped by then. Conflict and Transient are raised, and the caller's loop tries again.
    """
    for child in step.withdraw:
        await kube.delete(child)
    try:
        for child, body in step.patch:
            await kube.patch(child, body)
        for manifest in step.apply:
            await kube.apply(manifest)
    except (Forbidden, Invalid) as error:
        return error
    for child in step.delete:
        await kube.delete(child)
    return None
