"""`bench`: the figures as a table."""

from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from tunewright_cli.load.statistics import QUANTILES
from tunewright_cli.views.style import number

_ROWS = (
    ("first token", "ttftMilliseconds", "ms"),
    ("per further token", "tpotMilliseconds", "ms"),
    ("one answer", "tokensPerSecondPerRequest", "tokens/s"),
)


def render_bench(subject: str, report: dict[str, Any]) -> RenderableType:
    """All figures of a run."""
    table = Table("", *(f"p{quantile}" for quantile in QUANTILES), "", box=None, padding=(0, 2, 0, 0))
    for column in table.columns[1:-1]:
        column.justify = "right"
    for title, name, unit in _ROWS:
        table.add_row(title, *(number(report[name][f"p{quantile}"]) for quantile in QUANTILES), Text(unit, style="dim"))
    head = f"{report['requests']} requests, {report['concurrency']} at a time, to {subject}"
    errors = Text(f"{report['errors']} errors", style="red" if report["errors"] else "green")
    total = (
        f"{number(report['outputTokensPerSecond'])} tokens/s and {number(report['requestsPerSecond'])} requests/s in "
        f"all, {number(report['seconds'])} s, "
    )
    kinds = [Text(f"  {count} × {error}", style="red") for error, count in list(report["errorKinds"].items())[:5]]
    return Group(Text(head, style="bold"), table, Text(total).append_text(errors), *kinds)
