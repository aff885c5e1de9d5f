"""How the demo shows objects: pure functions from status to rich renderables."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from e2e.demo.load import Summary

Object = dict[str, Any]


def job_bar() -> Progress:
    """A progress bar for `job_fields`."""
    return Progress(
        TextColumn("[bold]{task.description}"),
        BarColumn(bar_width=32),
        MofNCompleteColumn(),
        TextColumn("{task.fields[detail]}"),
    )


def job_fields(job: Object) -> dict[str, Any]:
    """Fields of the bar: stage as description, steps done, the rest of status.progress as detail."""
    status = job.get("status", {})
    progress = status.get("progress") or {}
    return {
        "description": f"{status.get('stage', 'Pending'):<11}",
        "completed": progress.get("step", 0),
        "total": progress.get("totalSteps") or 1,
        "detail": detail(progress) if progress else status.get("message", ""),
    }


def job_line(job: Object) -> str:
    """The same as one line of a log."""
    fields = job_fields(job)
    return f"{fields['description']} {fields['completed']:>4}/{fields['total']:<4} {fields['detail']}"


def milestone(job: Object) -> tuple[str, int]:
    """Stage and tenths of the steps done: a log gets a new line when one of them changes."""
    status = job.get("status", {})
    return status.get("stage", "Pending"), (status.get("progress") or {}).get("percent", 0) // 10


def detail(progress: Object) -> str:
    """loss, tokens/s and time left, as far as they are known."""
    parts = []
    if (loss := progress.get("loss")) is not None:
        parts.append(f"loss {loss:.3f}")
    if rate := progress.get("tokensPerSecond"):
        parts.append(f"{rate:.0f} tokens/s")
    if (eta := progress.get("etaSeconds")) is not None:
        parts.append(f"{eta // 60}:{eta % 60:02d} left")
    return " · ".join(parts)


def evaluation_table(job: Object, base: str = "base") -> Table:
    """The model that training began with (`base` is its name here) against the tuned one, with gates."""
    table = Table("metric", base, "tuned", "gate", "", title="On the held-out questions", title_justify="left")
    for row in job["status"].get("evaluation", []):
        passed = row.get("passed")
        mark = "" if passed is None else "[green]passed[/green]" if passed else "[red]missed[/red]"
        table.add_row(row["metric"], f"{row['base']:.3f}", f"{row['tuned']:.3f}", row.get("gate", ""), mark)
    return table


def answers(prompts: Sequence[str], base: Sequence[str], tuned: Sequence[str]) -> RenderableType:
    """The same questions, answered by both models."""
    blocks: list[RenderableType] = []
    for prompt, before, after in zip(prompts, base, tuned, strict=True):
        blocks += [
            Text(f"? {prompt}", style="bold"),
            Text(f"  base   {_one_line(before)}", style="dim"),
            Text(f"  tuned  {_one_line(after)}", style="green"),
            Text(""),
        ]
    return Group(*blocks)


def _one_line(answer: str) -> str:
    return textwrap.shorten(answer, 160, placeholder=" …")


def load_line(load: Summary) -> str:
    """What became of a load's requests."""
    failed = f"{len(load.failures)} failed, the first one with: {load.failures[0]}" if load.failures else "none failed"
    return (
        f"Of {load.requests:,} requests in {load.seconds:.0f} s {failed}; "
        f"first token after {load.first_token_p50:.2f} s (p50), {load.first_token_p95:.2f} s (p95)"
    )


def time_table(seconds: Sequence[tuple[str, float]]) -> Table:
    """Where the time went."""
    table = Table("step", "seconds", title="Where the time went", title_justify="left")
    table.columns[1].justify = "right"
    for name, spent in seconds:
        table.add_row(name, f"{spent:.1f}")
    table.add_section()
    table.add_row("total", f"{sum(spent for _, spent in seconds):.1f}")
    return table
