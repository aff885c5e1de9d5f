"""What a check found."""

from enum import StrEnum
from typing import NamedTuple

from tunewright_cli.checks.snapshot import Seen


class Level(StrEnum):
    """How bad it is."""

    OK = "OK"
    WARNING = "Warning"
    BROKEN = "Broken"
    UNKNOWN = "Unknown"  # we may not look


class Finding(NamedTuple):
    """One line: a sentence, and a fix for everything that is not well."""

    check: str
    level: Level
    message: str
    fix: str = ""

    def to_dict(self) -> dict[str, str]:
        """As `check -o json` prints it."""
        return {"check": self.check, "level": self.level.value, "message": self.message, "fix": self.fix}


def ok(check: str, message: str) -> Finding:
    """All is well."""
    return Finding(check, Level.OK, message)


def broken(check: str, message: str, fix: str) -> Finding:
    """Something will not work."""
    return Finding(check, Level.BROKEN, message, fix)


def warning(check: str, message: str, fix: str) -> Finding:
    """It works, and somebody should know."""
    return Finding(check, Level.WARNING, message, fix)


def unknown(check: str, what: str, seen: Seen) -> Finding:
    """It cannot be told."""
    fix = "ask an administrator to run tunewright check" if seen.denied else ""
    return Finding(check, Level.UNKNOWN, f"{what} cannot be looked at: {seen.error}", fix)
