"""Times as Kubernetes writes them."""

from datetime import UTC, datetime


def format_time(moment: datetime) -> str:
    """RFC 3339 with whole seconds."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_time(text: str) -> datetime:
    """The inverse of `format_time`; also reads fractions of a second."""
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def parse_optional(text: str | None) -> datetime | None:
    """As `parse_time`; None for an absent time."""
    return parse_time(text) if text else None
