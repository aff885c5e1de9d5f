"""`check`: a line for each finding, and below what is not well its fix."""

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from tunewright_cli.checks.finding import Finding, Level

_MARKS = {
    Level.OK: ("✓", "green"),
    Level.WARNING: ("!", "yellow"),
    Level.BROKEN: ("✗", "red"),
    Level.UNKNOWN: ("?", "dim"),
}

_WORDS = {Level.BROKEN: "broken", Level.WARNING: "to know about", Level.UNKNOWN: "unknown"}


def render_findings(findings: Sequence[Finding]) -> RenderableType:
    """All lines, and how many of each kind there are."""
    table = Table.grid(padding=(0, 1))
    for finding in findings:
        sign, colour = _MARKS[finding.level]
        text = Text.assemble((f"{finding.check}: ", "bold"), finding.message)
        if finding.fix:
            text.append(f"\nfix: {finding.fix}", style=colour)
        table.add_row(Text(sign, style=colour), text)
    return Group(table, Text(), summary(findings))


def summary(findings: Sequence[Finding]) -> Text:
    """`2 broken, 1 warning`, or that all is well."""
    counts = {level: sum(finding.level is level for finding in findings) for level in Level}
    parts = [f"{counts[level]} {word}" for level, word in _WORDS.items() if counts[level]]
    if counts[Level.BROKEN]:
        return Text(", ".join(parts), style="red")
    return Text("all is well" + (f" ({', '.join(parts)})" if parts else ""), style="green")
