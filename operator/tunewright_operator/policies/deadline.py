"""activeDeadlineSeconds: a job that takes longer than this fails. Nothing counts while it is suspended."""

from datetime import datetime

from tunewright_operator.policies.failure import Failure


def seconds_left(limit: int | None, started: datetime | None, now: datetime) -> float | None:
    """Seconds to the deadline, negative after it; None without one or before the start."""
    if limit is None or started is None:
        return None
    return limit - (now - started).total_seconds()


def deadline_failure(limit: int | None, started: datetime | None, now: datetime) -> Failure | None:
    """The failure, once the deadline has passed."""
    left = seconds_left(limit, started, now)
    if left is None or left > 0:
        return None
    return Failure(
        "DeadlineExceeded",
        f"the job did not end within activeDeadlineSeconds ({limit}); its pods were stopped. What to do: raise it in a "
        "FineTuneJob with a new name",
    )
