"""What all screens share: marks and colours of states, ages, sizes, bars. Everything reads without colour too."""

from collections.abc import Iterable
from datetime import UTC, datetime

from rich.text import Text

from tunewright_cli.chain.model import State

# state -> (mark, colour)
STATES = {
    State.READY: ("✓", "green"),
    State.PROGRESSING: ("◐", "cyan"),
    State.WAITING: ("◇", "yellow"),
    State.DEGRADED: ("!", "yellow"),
    State.FAILED: ("✗", "red"),
    State.IDLE: ("–", "dim"),
    State.MISSING: ("?", "yellow"),
}
VERDICTS = {"Pass": ("✓", "green"), "Fail": ("✗", "red"), "Inconclusive": ("?", "yellow")}
_BAR = 20


def mark(state: State) -> Text:
    """The state as one coloured character."""
    sign, colour = STATES[state]
    return Text(sign, style=colour)


def verdict(word: str) -> Text:
    """The verdict of a check."""
    sign, colour = VERDICTS.get(word, ("?", "yellow"))
    return Text(f"{sign} {word}", style=colour)


def bar(percent: float, colour: str = "green", width: int = _BAR) -> Text:
    """A bar of `width` characters, filled to this share."""
    filled = round(width * min(max(percent, 0), 100) / 100)
    return Text.assemble(("█" * filled, colour), ("░" * (width - filled), "dim"))


def parse_time(text: str | None) -> datetime | None:
    """A time of the API, or None."""
    try:
        return datetime.fromisoformat(text) if text else None
    except ValueError:
        return None


def age(text: str | None, now: datetime) -> str:
    """How long ago, as kubectl writes it; empty where the time is not known."""
    then = parse_time(text)
    return duration((now - then).total_seconds()) if then else ""


def duration(seconds: float) -> str:
    """5s, 3m20s, 14m, 2h05m, 4d: no more digits than matter."""
    whole = max(int(seconds), 0)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}s" if whole < 600 else f"{whole // 60}m"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02}m"
    return f"{whole // 86400}d"


def size(count: int) -> str:
    """Bytes as 312 MB."""
    amount = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}"
        amount /= 1000
    return f"{amount:.1f} TB"


def short_digest(digest: str) -> str:
    """sha256:12ce9259c380, enough to recognise it."""
    return digest[:19]


def number(value: float | None) -> str:
    """A figure with three significant digits, without needless zeros."""
    if value is None:
        return "–"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def join(parts: Iterable[Text | str], separator: str = "  ") -> Text:
    """The parts that are not empty, side by side."""
    texts = [part if isinstance(part, Text) else Text(part) for part in parts]
    return Text(separator).join([text for text in texts if text.plain])


def now_utc() -> datetime:
    """The time now."""
    return datetime.now(UTC)
