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
    counts = [(level, sum(finding.level is level for finding in findings)) for level in Level]
    told = {Level.BROKEN: "broken", Level.WARNING: "to know", Level.UNKNOWN: "not to be told"}
    parts = [f"{number} {told[level]}" for level, number in counts if number and level in told]
    if any(finding.level is Level.BROKEN for finding in findings):
        return Text(", ".join(sorted(parts, key=lambda part: "broken" not in part)), style="red")
    return Text("all is well" + (f" ({', '.join(parts)})" if parts else ""), style="green")
