"""Times of raw objects."""

from datetime import datetime


def parse_optional(text: str | None) -> datetime | None:
    """RFC 3339, or None for an absent time."""
    return datetime.fromisoformat(text.replace("Z", "+00:00")) if text else None
