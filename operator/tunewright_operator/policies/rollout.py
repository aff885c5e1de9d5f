"""Which revision answers, and which are no longer needed.

The Service moves to the target once all its pods are ready. Until then the old revision serves, unless it has no ready
pod left or was withdrawn. An old revision goes in the reconcile after the one that moved the Service away from it: by
then its endpoints are being withdrawn, and the server's own drain takes care of what still runs.
"""

from collections.abc import Set
from dataclasses import dataclass

from tunewright_operator.observe.revisions import RevisionState, Serving


@dataclass(frozen=True)
class Rollout:
    """The decision: the revision that the Service selects, and the revisions to remove."""

    select: str | None
    remove: frozenset[str]


def decide(target: str | None, serving: Serving, withdrawn: Set[str]) -> Rollout:
    """`target` is the revision the spec asks for, None when it cannot be served; it may not exist yet."""
    alive = {name: state for name, state in serving.revisions.items() if name not in withdrawn}
    select = _select(target, alive, serving.selected)
    keep = {select, target, serving.selected}
    return Rollout(select, frozenset(serving.revisions) - (keep & alive.keys()))


def _select(target: str | None, alive: dict[str, RevisionState], selected: str | None) -> str | None:
    current = alive.get(selected) if selected else None
    if target is None or target == selected:
        return selected if current or target else None
    if current is None:
        return target
    wanted = alive.get(target)
    if wanted is None:
        return selected
    takes_over = wanted.complete or (wanted.ready > 0 and current.ready == 0)
    return target if takes_over else selected
