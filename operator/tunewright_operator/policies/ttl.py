"""ttlSecondsAfterFinished: how long the children of a finished job stay."""

from datetime import datetime


def seconds_left(ttl: int | None, finished: datetime | None, now: datetime) -> float | None:
    """Seconds until the children go, at least 0; None if they stay."""
    if ttl is None or finished is None:
        return None
    return max(ttl - (now - finished).total_seconds(), 0.0)
