"""What every reconcile function takes and returns."""

from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass, field
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
    # What the check that an earlier turn asked for has found.
    check: Analysis | None = None


@dataclass(frozen=True)
class Check:
    """A look at the candidate that takes a while, made beside the turns. `subject` says what it looks at: two checks of
    one subject are the same."""

    subject: Hashable
    make: Callable[[], Awaitable[Analysis]] = field(compare=False)


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
    `check` is to be made while turns go on, for as long as each of them asks for it; the first turn after its end gets
    what it found, and so decides with all that happened meanwhile.
    """

    status: Manifest
    requeue_after: float | None = None
    check: Check | None = None
