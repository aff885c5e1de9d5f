"""suspend: the one field of a running Job that follows the FineTuneJob."""

from typing import Any

from tunewright_operator.observe.jobs import JobState, JobView

Manifest = dict[str, Any]


def suspend_patch(job: JobView | None, wanted: bool) -> Manifest | None:
    """Merge patch that makes the Job follow; None if it does already, or has ended."""
    if job is None or job.deleting or job.state is not JobState.ACTIVE or job.suspended is wanted:
        return None
    return {"spec": {"suspend": wanted}}
