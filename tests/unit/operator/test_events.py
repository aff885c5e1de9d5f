"""A change of conditions is told once, with a severity that fits."""

from typing import Any

import pytest

from tunewright_operator.reconcile.events import compute_events
from tunewright_operator.reconcile.result import Event


def status(*conditions: tuple[str, str, str]) -> dict[str, Any]:
    """A status with (type, status, reason) conditions, whose messages are their reasons in words."""
    return {"conditions": [{"type": t, "status": s, "reason": r, "message": f"because {r}"} for t, s, r in conditions]}


CASES: list[tuple[str, dict[str, Any], dict[str, Any], tuple[Event, ...]]] = [
    (
        "a stage that succeeded is named",
        status(),
        status(("Trained", "True", "Succeeded")),
        (Event("Normal", "Trained", "because Succeeded"),),
    ),
    (
        "not ready yet is told once and is no warning",
        status(),
        status(("Ready", "False", "Loading"), ("Reconciling", "True", "Loading")),
        (Event("Normal", "Loading", "because Loading"),),
    ),
    (
        "waiting for a claim is told once and is no warning",
        status(),
        status(("Accepted", "False", "ClaimNotFound"), ("Reconciling", "True", "ClaimNotFound")),
        (Event("Normal", "ClaimNotFound", "because ClaimNotFound"),),
    ),
    (
        "not ready any more is a warning",
        status(("Ready", "True", "Serving")),
        status(("Ready", "False", "CrashLoop")),
        (Event("Warning", "CrashLoop", "because CrashLoop"),),
    ),
    (
        "a failure is told once, though Stalled repeats it",
        status(),
        status(("Failed", "True", "InvalidData"), ("Stalled", "True", "InvalidData")),
        (Event("Warning", "InvalidData", "because InvalidData"),),
    ),
    (
        "going on after a suspension is no warning",
        status(("Suspended", "True", "Suspended")),
        status(("Suspended", "False", "Resumed")),
        (Event("Normal", "Resumed", "because Resumed"),),
    ),
    (
        "another message is no event",
        status(("Ready", "True", "Serving")),
        {"conditions": [{"type": "Ready", "status": "True", "reason": "Serving", "message": "2 of 2"}]},
        (),
    ),
]


@pytest.mark.parametrize(("old", "new", "events"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_events(old: dict[str, Any], new: dict[str, Any], events: tuple[Event, ...]) -> None:
    assert compute_events(old, new) == events
