"""How long a Job may go without its pods: the Job controller creates them at once, or is refused."""

from datetime import datetime

from tunewright_operator.observe.jobs import JobState, JobView

# A busy controller takes some seconds.
PATIENCE_SECONDS = 30


def seconds_to_pods(job: JobView | None, wanted: int, now: datetime) -> float | None:
    """Seconds until missing pods are a problem, negative after that; None when none is missing, or none is due."""
    if job is None or job.state is not JobState.ACTIVE or job.suspended or job.resting or job.deleting:
        return None
    if len(job.pods) >= wanted:
        return None
    since = job.started or job.created
    return None if since is None else PATIENCE_SECONDS - (now - since).total_seconds()
