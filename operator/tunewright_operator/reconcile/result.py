"""What every reconcile function takes and returns."""

from dataclasses import dataclass
from typing import Any

from tunewright_api.rollout_status import Analysis

Manifest = dict[str, Any]


@dataclass(frozen=True)
class Children:
    """Raw children of one object, as the watches last saw them, by kind and without order.

    `orphans` are pods of a stage whose Job is gone, or belongs to a deleted object of the same name.
    """

    jobs: tuple[Manifest, ...] = ()
    pods: tuple[Manifest, ...] = ()
    orphans: tuple[Manifest, ...] = ()
    services: tuple[Manifest, ...] = ()
    config_maps: tuple[Manifest, ...] = ()
    network_policies: tuple[Manifest, ...] = ()
    deployments: tuple[Manifest, ...] = ()
    disruption_budgets: tuple[Manifest, ...] = ()
    # Every ModelVersion of the namespace: no children, but what an InferenceService chooses from.
    versions: tuple[Manifest, ...] = ()
    # The check that the turn before made.
    check: Analysis | None = None


@dataclass(frozen=True)
class Event:
    """A Kubernetes Event to post once the status that it speaks of is written."""

    type: str  # Normal or Warning
    reason: str
    message: str


@dataclass(frozen=True)
class Result:
    """Outcome of one reconcile. `requeue_after` in seconds; None waits for the next wake-up.

    A reconcile that writes a status on the way, before it carries out what it announces, puts it into the object.
    `check` is handed to the next turn: measuring takes a while, and the decision shall see what happened meanwhile.
    """

    status: Manifest
    requeue_after: float | None = None
    check: Analysis | None = None
